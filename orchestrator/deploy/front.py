"""The front as the operator sees it: started when needed, asked for news, stopped. It runs as `deployments.front`."""

from __future__ import annotations

import errno
import os
import sys
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from orchestrator.deploy import processes
from orchestrator.errors import ApplyFailed, ConfigError
from orchestrator.store.database import store_url
from orchestrator.store.home import forget_record, home, locked, read_record, subfolder, write_record
from orchestrator.store.secrets import control_token, ensure_api_key

RECORD = "front"
SETTINGS_FILE = "front.yaml"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000
CONTROL_HOST = "127.0.0.1"
CONTROL_PORT = 8001
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class FrontRecord:
    """A front that runs here."""

    pid: int
    started: float
    host: str
    port: int
    control_url: str
    kind: str = "haproxy"

    @property
    def base_url(self) -> str:
        """What the OpenAI SDK takes as `base_url`."""
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 - shown, not bound
        return f"http://{host}:{self.port}/v1"


def running_front() -> FrontRecord | None:
    """The front started from this state folder, if it still runs."""
    front = _recorded_front()
    return front if front is not None and processes.is_running(front.pid, front.started) else None


def _recorded_front() -> FrontRecord | None:
    try:
        return FrontRecord(**(read_record(RECORD) or {}))
    except TypeError:  # none, or one of another version
        return None


def ensure_front(
    host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, kind: str = "haproxy", control_host: str = CONTROL_HOST
) -> FrontRecord:
    """The running front, or a new one at `host`:`port`. `kind` is haproxy, or serve for Ray Serve's own proxy.

    `control_host` is where replicas announce themselves: loopback where they all run on this machine.
    Raises `ConfigError` when the port is taken, or when a front already runs at another address.
    """
    with locked("front"):
        if (front := running_front()) is not None:
            if (front.host, front.port, front.kind) != (host, port, kind):
                raise ConfigError(
                    f"the front ({front.kind}) already listens on {front.host}:{front.port}; use it, or change it: "
                    f"orchestrator down, then deploy with --host {host} --port {port} --front {kind}"
                )
            if urlsplit(front.control_url).hostname != control_host:
                raise ConfigError(
                    f"the front takes replicas at {front.control_url}, and this cluster's nodes reach it at "
                    f"{control_host}; first: orchestrator down"
                )
            return front
        return _start(host, port, kind, control_host)


def _start(host: str, port: int, kind: str, control_host: str) -> FrontRecord:
    _end_leftovers()
    _check_address(host, port)
    # Replicas that outlived an earlier front know its control address: keep it when it can be had.
    earlier = read_record(RECORD) or {}
    wanted = int(str(earlier.get("control_url", f":{CONTROL_PORT}")).rpartition(":")[2])
    control_port = processes.free_port(control_host, wanted)
    log_path = subfolder("logs") / "front.log"
    command = [
        sys.executable, "-m", "deployments.front", "--folder", str(subfolder("front")),
        "--host", host, "--port", str(port),
        "--control-host", control_host, "--control-port", str(control_port), "--key-file", str(ensure_api_key()),
        "--store", store_url(), "--settings", str(home() / SETTINGS_FILE),
        *(["--no-haproxy"] if kind == "serve" else []),
    ]  # fmt: skip
    process = processes.start_detached(command, log_path, os.environ)
    front = FrontRecord(
        process.pid, processes.identity(process.pid) or 0.0, host, port, f"http://{control_host}:{control_port}", kind
    )
    write_record(RECORD, vars(front))
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _is_up(front):
        if process.poll() is not None or time.monotonic() > deadline:
            stop_front()
            raise ApplyFailed(f"the front did not start ({processes.tail(log_path)}); its output is in {log_path}")
        time.sleep(0.05)
    return front


def _check_address(host: str, port: int) -> None:
    """Raise `ConfigError` where nobody could listen, saying who does or what else hinders."""
    error = processes.bind_error(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise ConfigError(
            f"port {port} on {host} is taken by {processes.who_listens(port)}; stop it or choose another with --port"
        )
    raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port")


def _end_leftovers() -> bool:
    """End the HAProxy of a front that was killed: it holds the port, with routes that nobody keeps up."""
    front = _recorded_front()
    if front is None or processes.is_running(front.pid, front.started):
        return False
    return processes.end_leftovers(front.pid, front.started)


def _is_up(front: FrontRecord) -> bool:
    """Whether it answers: at its public address, or where Serve opens that later, at its inner door (401 to us)."""
    url = f"{front.base_url[:-3]}/health" if front.kind == "haproxy" else f"{front.control_url}/state"
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code in (200, 401)
    except httpx.HTTPError:
        return False


def stop_front() -> bool:
    """End the front; whether one ran."""
    with locked("front-stop"):
        front = running_front()
        ended = front is not None and processes.end(front.pid, front.started)
        ended |= _end_leftovers()
        forget_record(RECORD)
        return ended


class FrontControl:
    """The front's inner door."""

    def __init__(self, control_url: str, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=control_url,
            headers={"Authorization": f"Bearer {control_token()}"},
            timeout=40.0,
            transport=transport,
            trust_env=False,
        )

    def events(self, deployment: str, after: int, wait_s: float = 0.0) -> dict[str, Any]:
        """What a deployment's engines told after event `after`; waits up to `wait_s` for the first."""
        params = {"deployment": deployment, "after": after, "wait_s": wait_s}
        return self._get("/events", params)

    def deployments(self) -> list[dict[str, Any]]:
        """The deployments the front knows, with the replicas that announce themselves."""
        found: list[dict[str, Any]] = self._get("/state", {})["deployments"]
        return found

    def forget(self, deployment: str) -> None:
        """A deployment is deleted: its name becomes unknown."""
        self._send("DELETE", f"/deployments/{deployment}")

    def _get(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        document: dict[str, Any] = self._send("GET", path, params=params).json()
        return document

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise ApplyFailed(
                f"the front does not answer ({type(error).__name__}); see `orchestrator status`"
            ) from None
        return response
