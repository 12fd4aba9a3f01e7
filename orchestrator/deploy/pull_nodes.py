"""`pull` on every node of a cluster at once: a Ray job that is started, followed and, if need be, stopped by REST."""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.deploy.clock import Clock
from orchestrator.deploy.ray_api import RayApi
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.units import format_bytes
from orchestrator.weights.meter import Reading
from orchestrator.weights.wanted import Wanted

MODULE = "deployments.pull_everywhere"
# What the job prints before a line that is meant for this side; everything else in its log is for people.
MARK = "pull: "
ASK_EVERY_S = 2.0
# Enough for the latest line of the job and what Ray and others print between two looks.
LINES = 60
_OVER = ("SUCCEEDED", "FAILED", "STOPPED")
# The job's shell knows the node's PATH, which need not lead to the environment that Ray runs in.
_FIND_PYTHON = (
    'for python in {here} "$(dirname "$(command -v ray)")/python" ~/moe-orchestrator/.venv/bin/python python3; do '
    "\"$python\" -c \"import importlib.util as i, sys; sys.exit(not (i.find_spec('ray') and i.find_spec('{module}')))\""
    ' 2>/dev/null && exec "$python" -m {module} {words}; done; '
    'echo "no Python on this node has both ray and this version of moe-orchestrator" >&2; exit 127'
)


@dataclass(frozen=True)
class NodeState:
    """One node, as the job last told: how far it is, and in the end what came of it."""

    node: str
    reading: Reading
    outcome: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple((self.outcome or {}).get("notes", ()))

    def line(self) -> str:
        """`already there, 9.6 GiB in /mnt/nvme/…`."""
        if self.outcome is None:
            return self.error or str(self.reading)
        return f"{self.outcome['state']}, {format_bytes(self.outcome['size_bytes'])} in {self.outcome['folder']}"

    def document(self) -> dict[str, Any]:
        return {"node": self.node, "error": self.error or None, **(self.outcome or {})}


def run(
    api: RayApi, wanted: Wanted, check_only: bool, show: Callable[[NodeState], None], clock: Clock = Clock()
) -> tuple[NodeState, ...]:
    """Pull on all nodes; what came of each. Ctrl-C stops the job.

    Raises `ApplyFailed` with the job's last words where it ends without a word on the nodes.
    """
    job_id = f"pull-{uuid.uuid4().hex[:12]}"
    api.submit_job(job_id, entrypoint(wanted, check_only))
    try:
        return _follow(api, job_id, show, clock)
    except BaseException:
        api.stop_job(job_id)
        raise


def entrypoint(wanted: Wanted, check_only: bool) -> str:
    """The job's shell command. Whoever sees the cluster can read it, so no secret stands in it."""
    words = [wanted.model, "--source", str(wanted.source)]
    words += ["--size-bytes", str(wanted.size_bytes)] if wanted.size_bytes else []
    words += ["--remote-code"] if wanted.remote_code else []
    words += ["--check-only"] if check_only else []
    return _FIND_PYTHON.format(here=shlex.quote(sys.executable), module=MODULE, words=shlex.join(words))


def _follow(api: RayApi, job_id: str, show: Callable[[NodeState], None], clock: Clock) -> tuple[NodeState, ...]:
    states: tuple[NodeState, ...] = ()
    while True:
        job = api.job(job_id)
        lines = _log(api, job, job_id)
        told = [line[len(MARK) :] for line in lines if line.startswith(MARK)]
        if told:
            states, finished = read_line(told[-1])
            for state in states:
                show(state)
            if finished:
                return states
        if job["status"] in _OVER:
            words = [line for line in lines if line.strip() and not line.startswith(MARK)]
            raise ApplyFailed(f"the job {job_id} ended ({job['status']}): {words[-1] if words else job['message']}")
        clock.sleep(ASK_EVERY_S)


def _log(api: RayApi, job: Mapping[str, Any], job_id: str) -> list[str]:
    node_id = job.get("driver_node_id")
    if not node_id:
        return []  # it has not been placed yet
    try:
        return list(api.stream_log(node_id, f"job-driver-{job_id}.log", LINES, follow=False))
    except ClusterUnavailable:
        return []  # not written yet


def read_line(text: str) -> tuple[tuple[NodeState, ...], bool]:
    """What one line of the job says: every node's state, and whether that was the last word."""
    document = json.loads(text)
    states = tuple(
        NodeState(row["node"], Reading(**row["reading"]), row.get("outcome"), row.get("error") or "")
        for row in document["nodes"]
    )
    return states, bool(document["finished"])
