"""Ray's dashboard REST API: version, nodes, Serve applications, logs. The only way the operator's side talks to Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from orchestrator.cluster import labels
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.units import format_bytes

RAY_VERSION = "2.60.0"
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class RayNode:
    """One live node: logical resources and the memory its machine has left, in bytes."""

    node_id: str
    address: str
    resources: dict[str, float]
    memory_total_bytes: int | None
    memory_available_bytes: int | None
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What plans call it: its `orchestrator/host` label, else its address."""
        return labels.node_name(self.labels, self.address)

    @property
    def is_emulated(self) -> bool:
        """Whether CPUs stand in for its GPUs."""
        return self.labels.get(labels.EMULATED) == "true"

    @property
    def num_gpus(self) -> int:
        return int(self.resources.get("GPU", 0))

    def describe(self) -> str:
        """`127.0.0.1: CPU 2, 21.3 GiB free of 23.5 GiB`; under its own name where it has one."""
        shown = ", ".join(f"{key} {self.resources[key]:g}" for key in ("CPU", "GPU") if key in self.resources)
        if self.memory_available_bytes is None or self.memory_total_bytes is None:
            return f"{self.name}: {shown}"
        memory = f"{format_bytes(self.memory_available_bytes)} free of {format_bytes(self.memory_total_bytes)}"
        emulated = " (emulated)" if self.is_emulated else ""
        return f"{self.name}{emulated}: {shown}, {memory}"


class RayApi:
    """A cluster's dashboard at `url`, with Ray's token."""

    def __init__(self, url: str, token: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Ray's dashboard answers on loopback or through a tunnel: a proxy of the environment must not see the token.
        try:
            self._client = httpx.Client(
                base_url=self.url, headers=headers, timeout=TIMEOUT_S, transport=transport, trust_env=False
            )
        except httpx.InvalidURL as error:
            raise ClusterUnavailable(f"{url} is no address of a Ray dashboard ({error}); see --address") from None

    def close(self) -> None:
        self._client.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ClusterUnavailable(
                f"Ray's dashboard at {self.url} does not answer ({type(error).__name__}); "
                "is the cluster up, and does --address (or RAY_DASHBOARD_URL) name it?"
            ) from None
        if response.status_code in (401, 403):
            raise ClusterUnavailable(
                f"Ray at {self.url} does not accept this token; copy the cluster's token to "
                "~/.ray/auth_token (or set RAY_AUTH_TOKEN)"
            )
        return response

    def _data(self, path: str, **params: str) -> dict[str, Any]:
        """The `data` of one of the dashboard's own answers."""
        response = self._send("GET", path, params=params)
        if response.status_code != 200:
            raise ClusterUnavailable(f"Ray at {self.url} answers {response.status_code} to {path}: {_line(response)}")
        data: dict[str, Any] = response.json()["data"]
        return data

    def version(self) -> str:
        """The Ray version of the cluster."""
        try:
            return str(self._send("GET", "/api/version").json()["ray_version"])
        except (ValueError, LookupError, TypeError):
            raise ClusterUnavailable(f"what answers at {self.url} is no Ray dashboard; name one by --address") from None

    def requires_token(self) -> bool:
        """Whether the cluster turns strangers away (token authentication is on)."""
        try:
            return httpx.get(f"{self.url}/api/version", timeout=TIMEOUT_S, trust_env=False).status_code == 401
        except httpx.HTTPError:
            return False

    def node_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """What nodes have, as the dashboard tells it: what their agents measured, and what Ray was told."""
        agents: list[dict[str, Any]] = self._data("/nodes", view="summary").get("summary", [])
        states: list[dict[str, Any]] = self._data("/api/v0/nodes", detail="true", limit="10000")["result"]["result"]
        return agents, states

    def nodes(self) -> list[RayNode]:
        """The nodes that are alive."""
        return nodes_of(*self.node_rows())

    def free_resources(self) -> dict[str, float]:
        """Logical resources of the whole cluster that nobody uses. What Ray has not reported on yet is in no use."""
        status = self._data("/api/cluster_status")["clusterStatus"] or {}
        usage = (status.get("loadMetricsReport") or {}).get("usage") or {}
        free: dict[str, float] = {}
        for node in self.nodes():
            for resource, total in node.resources.items():
                free[resource] = free.get(resource, 0.0) + total
        return {resource: total - float(usage.get(resource, (0, 0))[0]) for resource, total in free.items()}

    def serve_details(self) -> dict[str, Any]:
        """Serve's own account of itself: applications, deployments, replicas."""
        response = self._send("GET", "/api/serve/applications/")
        if response.status_code != 200:
            raise ClusterUnavailable(f"Ray Serve at {self.url} answers {response.status_code}: {_line(response)}")
        details: dict[str, Any] = response.json()
        return details

    def put_applications(self, config: dict[str, Any]) -> None:
        """Replace ALL applications by those of `config`: callers read, change and write under a lock."""
        response = self._send("PUT", "/api/serve/applications/", json=config, timeout=120.0)
        if response.status_code != 200:
            raise ApplyFailed(f"Ray Serve refused the configuration: {_line(response)}")

    def shutdown_serve(self) -> None:
        """Stop Serve with every application."""
        self._send("DELETE", "/api/serve/applications/", timeout=120.0)

    def submit_job(self, job_id: str, entrypoint: str) -> None:
        """Start a shell command on the head; whoever has the token can read it, and its output."""
        body = {"entrypoint": entrypoint, "submission_id": job_id}
        response = self._send("POST", "/api/jobs/", json=body, timeout=120.0)
        if response.status_code != 200:
            raise ApplyFailed(f"Ray does not start the job {job_id}: {_line(response)}")

    def job(self, job_id: str) -> dict[str, Any]:
        """A job as Ray tells it: `status`, `message`, `driver_node_id` once it has a place, …"""
        response = self._send("GET", f"/api/jobs/{job_id}")
        if response.status_code != 200:
            raise ApplyFailed(f"Ray knows no job {job_id} any more: {_line(response)}")
        job: dict[str, Any] = response.json()
        return job

    def stop_job(self, job_id: str) -> None:
        """End a job with everything it started; one that is over stays as it is."""
        self._send("POST", f"/api/jobs/{job_id}/stop")

    def log_files(self, node_id: str) -> list[str]:
        """The names of a node's log files."""
        response = self._send("GET", "/api/v0/logs", params={"node_id": node_id, "glob": "**/*"})
        groups = response.json().get("data", {}).get("result", {}) if response.status_code == 200 else {}
        return [name for names in groups.values() for name in names]

    def stream_log(self, node_id: str, filename: str, lines: int, follow: bool) -> Iterator[str]:
        """The last `lines` of a node's log file, then, with `follow`, what is added to it."""
        params: dict[str, Any] = {"node_id": node_id, "filename": filename, "lines": lines}
        params["media_type"] = "stream" if follow else "file"
        timeout = httpx.Timeout(TIMEOUT_S, read=None if follow else TIMEOUT_S)
        try:
            with self._client.stream(
                "GET", "/api/v0/logs/" + params["media_type"], params=params, timeout=timeout
            ) as r:
                if r.status_code != 200:
                    r.read()
                    raise ClusterUnavailable(f"Ray cannot read the log {filename}: {_line(r)}")
                yield from r.iter_lines()
        except httpx.HTTPError as error:
            raise ClusterUnavailable(f"the log {filename} broke off ({type(error).__name__})") from None


def nodes_of(agents: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any]]) -> list[RayNode]:
    """The nodes that are alive, of `node_rows`. A node's memory is unknown (None) for the first seconds of its life."""
    memory = {row["raylet"].get("nodeId"): (int(row["mem"][0]), int(row["mem"][1])) for row in agents if row.get("mem")}
    return [_node(row, *memory.get(row["node_id"], (None, None))) for row in states if row["state"] == "ALIVE"]


def _node(row: Mapping[str, Any], total_bytes: int | None, available_bytes: int | None) -> RayNode:
    facts = row["node_id"], row["node_ip"], row["resources_total"]
    return RayNode(*facts, total_bytes, available_bytes, row.get("labels") or {})


def _line(response: httpx.Response) -> str:
    lines = [line.strip() for line in response.text.splitlines() if line.strip()]
    # pydantic ends its complaints with a link.
    told = [line for line in lines if not line.startswith("For further information visit")]
    return told[-1][:300] if told else "(no reason given)"
