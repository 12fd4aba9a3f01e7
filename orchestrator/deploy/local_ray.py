"""A Ray on this machine, started and ended by this tool: one node, or several whose GPUs are emulated."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.cluster import labels
from orchestrator.deploy import processes
from orchestrator.errors import ClusterUnavailable
from orchestrator.store.home import forget_record, locked, read_record, subfolder, write_record
from orchestrator.store.secrets import ensure_ray_token
from orchestrator.units import MIB

HOST = "127.0.0.1"
DASHBOARD_PORT = 8265
GCS_PORT = 6379
AGENT_PORT = 52365
START_TIMEOUT_S = 120.0
RECORD = "ray"
# Ray's own share of memory for objects is a third of the machine; emulated nodes share one machine, and pass few.
EMULATED_OBJECT_STORE_BYTES = 128 * MIB

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
class EmulatedNode:
    """A node whose GPUs are CPUs: its name in plans, how many GPUs, and Ray's name for their kind."""

    name: str
    num_gpus: int
    accelerator_type: str

    @property
    def options(self) -> list[str]:
        """Options of `ray start`. A rank takes a CPU beside its GPU; one more is for the driver."""
        return [
            f"--num-gpus={self.num_gpus}",
            f"--num-cpus={self.num_gpus + 1}",
            f"--resources={json.dumps({f'accelerator_type:{self.accelerator_type}': 1})}",
            f"--labels={labels.HOST}={self.name},{labels.EMULATED}=true",
            f"--object-store-memory={EMULATED_OBJECT_STORE_BYTES}",
        ]


def running_url() -> str | None:
    """The dashboard of the Ray that was started here, if it still runs."""
    record = read_record(RECORD)
    if record is None or not processes.is_running(int(record["pid"]), float(record["started"] or 0)):
        return None
    return str(record["dashboard_url"])


def start(say: Callable[[str], None], emulated: Sequence[EmulatedNode] = ()) -> tuple[str, bool]:
    """Start a Ray with the switches it needs, unless one has been: the URL of its dashboard, and whether it is new.

    Raises `ClusterUnavailable` with Ray's own last words if it does not come up.
    """
    with locked("ray"):
        if (running := running_url()) is not None:
            return running, False
        ray = _ray_command()
        ensure_ray_token()
        url = f"http://{HOST}:{processes.free_port(HOST, DASHBOARD_PORT)}"
        gcs_port = processes.free_port(HOST, GCS_PORT)
        head = [
            "--head", "--include-dashboard=true", f"--port={gcs_port}",
            f"--dashboard-host={HOST}", f"--dashboard-port={url.rpartition(':')[2]}",
            *(emulated[0].options if emulated else []),
        ]  # fmt: skip
        members: list[dict[str, Any]] = []
        try:
            members.append(_start_node([*ray, "start", *head], subfolder("logs") / "ray.log", url, members))
            _wait_for_dashboard(url, members[0], subfolder("logs") / "ray.log", say)
            for index, node in enumerate(emulated[1:], start=1):
                say(f"starting emulated node {node.name} ({index + 1} of {len(emulated)})")
                command = [*ray, "start", f"--address={HOST}:{gcs_port}", *node.options]
                members.append(_start_node(command, subfolder("logs") / f"ray-{node.name}.log", url, members))
        except BaseException:
            stop()
            raise
        return url, True


def stop() -> bool:
    """End the Ray that was started here, and nothing else; whether one ran."""
    record = read_record(RECORD)
    # Models are gone before this (`down` deletes them first), so there is nothing a patient end would save: asked
    # politely, raylet drains an empty node for 30 s.
    members = [] if record is None else [*reversed(record.get("others", [])), record]
    ended = [
        processes.end(int(each["pid"]), float(each["started"] or 0), timeout_s=3.0, all_at_once=True)
        for each in members
    ]
    forget_record(RECORD)
    return any(ended)


def _start_node(command: list[str], log_path: Path, url: str, earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Start one node, and record it with those before it."""
    options = [
        "--block", "--disable-usage-stats", f"--node-ip-address={HOST}",
        # The one other port that Ray fixes: a second node on the machine would lose its agent, and its logs.
        f"--dashboard-agent-listen-port={processes.free_port(HOST, AGENT_PORT)}",
    ]  # fmt: skip
    process = processes.start_detached([*command, *options], log_path, {**os.environ, **RAY_ENVIRONMENT})
    member = {"pid": process.pid, "started": processes.identity(process.pid)}
    first, *others = [*earlier, member]
    write_record(RECORD, {**first, "dashboard_url": url, "others": others})
    return member


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


def _wait_for_dashboard(url: str, member: dict[str, Any], log_path: Path, say: Callable[[str], None]) -> None:
    begun = time.monotonic()
    while not _answers(url):
        waited_s = time.monotonic() - begun
        if not processes.is_running(member["pid"], member["started"] or 0) or waited_s > START_TIMEOUT_S:
            why = processes.tail(log_path, lines=2)
            raise ClusterUnavailable(f"Ray did not start ({why}); its output is in {log_path}")
        say(f"starting Ray ({waited_s:.0f} s)")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", timeout=2, trust_env=False).status_code in (200, 401)
    except httpx.HTTPError:
        return False
