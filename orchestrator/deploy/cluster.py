"""Which Ray to talk to: the one named, the one started here, one that runs on this machine, or a new local one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.deploy import processes
from orchestrator.deploy.ray_api import RAY_VERSION, RayApi
from orchestrator.errors import ClusterUnavailable
from orchestrator.store.home import forget_record, locked, read_record, subfolder, write_record
from orchestrator.store.secrets import ensure_ray_token, read_ray_token

LOCAL_HOST = "127.0.0.1"
DASHBOARD_PORT = 8265
GCS_PORT = 6379
AGENT_PORT = 52365
START_TIMEOUT_S = 120.0
RECORD = "ray"

# In force from the moment Ray starts: strangers need the token, and nobody is told what runs here.
RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray runs its workers at niceness 15; an engine must not yield to everything else on its own machine.
    "RAY_worker_niceness": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class Cluster:
    """A Ray to deploy to. `ours` tells whether it was started by this tool, on this machine."""

    dashboard_url: str
    ours: bool

    def api(self) -> RayApi:
        return RayApi(self.dashboard_url, read_ray_token())


def find_cluster(address: str | None) -> Cluster | None:
    """The Ray that a command means, or None when none runs.

    In order: --address, RAY_DASHBOARD_URL (or Ray's own RAY_API_SERVER_ADDRESS), the one recorded as started here,
    one whose dashboard answers on the usual port. The address `local` means the one started here and no other.
    """
    named = address or os.environ.get("RAY_DASHBOARD_URL") or os.environ.get("RAY_API_SERVER_ADDRESS")
    if named and named != "local":
        return Cluster(_as_url(named), ours=False)
    if (record := _running_record()) is not None:
        return Cluster(str(record["dashboard_url"]), ours=True)
    if named == "local":
        return None
    usual = f"http://{LOCAL_HOST}:{DASHBOARD_PORT}"
    return Cluster(usual, ours=False) if _is_ray(usual) else None


def check_usable(cluster: Cluster) -> RayApi:
    """An API to a cluster that can serve: right version, token authentication on.

    Raises `ClusterUnavailable` saying what to change.
    """
    api = cluster.api()
    version = api.version()
    if version != RAY_VERSION:
        raise ClusterUnavailable(
            f"Ray at {cluster.dashboard_url} is version {version}, and this orchestrator needs {RAY_VERSION}; "
            f"restart it with ray=={RAY_VERSION}, or name another with --address"
        )
    if not api.requires_token():
        raise ClusterUnavailable(
            f"Ray at {cluster.dashboard_url} runs without token authentication, so anyone who reaches it can run "
            "code there; restart it with RAY_AUTH_MODE=token, or stop it and let `deploy` start its own"
        )
    return api


def start_local(say: Callable[[str], None]) -> Cluster:
    """Start a Ray on this machine with the switches it needs; returns once its dashboard answers.

    Raises `ClusterUnavailable` with Ray's own last words if it does not come up.
    """
    with locked("ray"):
        if (record := _running_record()) is not None:
            return Cluster(str(record["dashboard_url"]), ours=True)
        ray = _ray_command()
        ensure_ray_token()
        dashboard_port = processes.free_port(LOCAL_HOST, DASHBOARD_PORT)
        url = f"http://{LOCAL_HOST}:{dashboard_port}"
        command = [
            *ray, "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true",
            f"--node-ip-address={LOCAL_HOST}", f"--port={processes.free_port(LOCAL_HOST, GCS_PORT)}",
            f"--dashboard-host={LOCAL_HOST}", f"--dashboard-port={dashboard_port}",
            # The one other port that Ray fixes: a second Ray on the machine would lose its agent, and its logs.
            f"--dashboard-agent-listen-port={processes.free_port(LOCAL_HOST, AGENT_PORT)}",
        ]  # fmt: skip
        log_path = subfolder("logs") / "ray.log"
        process = processes.start_detached(command, log_path, {**os.environ, **RAY_ENVIRONMENT})
        started = processes.identity(process.pid)
        write_record(RECORD, {"pid": process.pid, "started": started, "dashboard_url": url})
        try:
            _wait_for_dashboard(url, process.poll, log_path, say)
        except BaseException:
            stop_local()
            raise
        return Cluster(url, ours=True)


def stop_local() -> bool:
    """End the Ray that was started here, and nothing else; whether one ran."""
    record = read_record(RECORD)
    # Models are gone before this (`down` deletes them first), so there is nothing a patient end would save: asked
    # politely, raylet drains an empty node for 30 s.
    ended = record is not None and processes.end(
        int(record["pid"]), float(record["started"] or 0), timeout_s=3.0, all_at_once=True
    )
    forget_record(RECORD)
    return ended


def _running_record() -> dict[str, Any] | None:
    record = read_record(RECORD)
    if record is None or not processes.is_running(int(record["pid"]), float(record["started"] or 0)):
        return None
    return record


def _ray_command() -> list[str]:
    """The `ray` beside the Python that runs this, else the one on PATH."""
    beside = Path(sys.executable).parent / "ray"
    found = str(beside) if beside.exists() else shutil.which("ray")
    if found is None:
        raise ClusterUnavailable(
            "no Ray runs and none is installed here; install it with `scripts/env cpu` (or pip install "
            "'moe-orchestrator[cpu]'), or name a running one with --address"
        )
    return [found]


def _wait_for_dashboard(
    url: str, exit_code: Callable[[], int | None], log_path: Path, say: Callable[[str], None]
) -> None:
    begun = time.monotonic()
    while not _answers(url):
        waited_s = time.monotonic() - begun
        if exit_code() is not None or waited_s > START_TIMEOUT_S:
            why = processes.tail(log_path, lines=2)
            raise ClusterUnavailable(f"Ray did not start ({why}); its output is in {log_path}")
        say(f"starting Ray ({waited_s:.0f} s)")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", timeout=2, trust_env=False).status_code in (200, 401)
    except httpx.HTTPError:
        return False


def _is_ray(url: str) -> bool:
    """Whether a Ray dashboard is there: another program on that port is none of ours."""
    try:
        response = httpx.get(f"{url}/api/version", timeout=2, trust_env=False)
    except httpx.HTTPError:
        return False
    return response.status_code == 401 or (response.status_code == 200 and "ray_version" in response.text)


def _as_url(address: str) -> str:
    """`http://host:port` of a dashboard; a bare host gets the usual port."""
    if "://" in address:
        return address
    return f"http://{address}" if ":" in address else f"http://{address}:{DASHBOARD_PORT}"
