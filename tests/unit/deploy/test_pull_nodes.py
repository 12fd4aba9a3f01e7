"""A pull on all nodes is a job that is started, followed to its last word, and stopped when nobody waits any more."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import httpx
import pytest

from orchestrator.deploy.clock import Clock
from orchestrator.deploy.pull_nodes import MARK, NodeState, entrypoint, read_line, run
from orchestrator.deploy.ray_api import RayApi
from orchestrator.errors import ApplyFailed
from orchestrator.weights.source import HubSource, StoreSource
from orchestrator.weights.wanted import Wanted

WANTED = Wanted("org/m", HubSource("org/m"), remote_code=True, size_bytes=7)
READING = {"phase": "fetching", "done_bytes": 1, "total_bytes": 2, "bytes_per_s": 1.0, "eta_s": 1.0}
OUTCOME = {"state": "fetched", "size_bytes": 2048, "folder": "/cache/m", "revision": "c" * 40, "notes": ["a note"]}


def row(node: str, **more: Any) -> dict[str, Any]:
    return {"node": node, "reading": READING, "outcome": None, "error": ""} | more


def line(*rows: dict[str, Any], finished: bool = False) -> str:
    return MARK + json.dumps({"nodes": list(rows), "finished": finished})


class Job:
    """A dashboard whose job says these logs, one each time it is asked."""

    def __init__(self, *logs: str, last_status: str = "SUCCEEDED") -> None:
        self.logs, self.last_status = list(logs), last_status
        self.asked: list[str] = []
        self.body: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/api/jobs/":
            self.body = json.loads(request.content)
            return httpx.Response(200, json={"submission_id": self.body["submission_id"]})
        if request.url.path.endswith("/stop"):
            return httpx.Response(200, json={"stopped": True})
        if request.url.path.startswith("/api/jobs/"):
            over = len(self.logs) == 1
            status = self.last_status if over else "RUNNING"
            return httpx.Response(200, json={"status": status, "message": "the job's message", "driver_node_id": "n1"})
        return httpx.Response(200, text=self.logs.pop(0) if len(self.logs) > 1 else self.logs[0])

    def api(self) -> RayApi:
        return RayApi("http://ray:8265", "t0ken", httpx.MockTransport(self))


def follow(job: Job) -> tuple[tuple[NodeState, ...], list[str]]:
    seen: list[str] = []
    clock = replace(Clock(), sleep=lambda _s: None)
    states = run(job.api(), WANTED, False, lambda state: seen.append(state.line()), clock)
    return states, seen


def test_the_job_is_followed_to_its_last_word() -> None:
    job = Job("", line(row("10.0.0.1")), f"noise\n{line(row('10.0.0.1', outcome=OUTCOME), finished=True)}\n")
    states, seen = follow(job)
    assert seen == ["fetching 1 B of 2 B, 1 B/s, 1.0 s left", "fetched, 2.0 KiB in /cache/m"]
    assert (states[0].error, states[0].notes) == ("", ("a note",))
    assert not any(path.endswith("/stop") for path in job.asked)


def test_a_job_that_ends_without_a_word_on_the_nodes_tells_why() -> None:
    with pytest.raises(ApplyFailed, match=r"ended \(FAILED\): org/m is gated and no token is set"):
        follow(Job("", "Running entrypoint\norg/m is gated and no token is set\n", last_status="FAILED"))
    with pytest.raises(ApplyFailed, match=r"\(STOPPED\): the job's message"):
        follow(Job("", "\n", last_status="STOPPED"))


def test_whoever_stops_waiting_stops_the_job() -> None:
    job = Job("", line(row("10.0.0.1")))

    def interrupt(_state: NodeState) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job.api(), WANTED, False, interrupt, replace(Clock(), sleep=lambda _s: None))
    assert job.asked[-1] == f"POST /api/jobs/{job.body['submission_id']}/stop"


def test_a_node_that_failed_says_why() -> None:
    (state,), finished = read_line(line(row("10.0.0.1", error="too little disk"), finished=True)[len(MARK) :])
    assert (finished, state.line(), state.document()["error"]) == (True, "too little disk", "too little disk")


def test_the_jobs_command_carries_what_is_wanted_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    command = entrypoint(WANTED, check_only=True)
    assert (
        "-m deployments.pull_everywhere org/m --source hf://org/m --size-bytes 7 --remote-code --check-only" in command
    )
    assert "hf_secret" not in command
    strange = entrypoint(Wanted("m", StoreSource("s3://b/$(reboot) x")), check_only=False)
    assert shlex.quote("s3://b/$(reboot) x") in strange


def test_a_refusal_of_ray_is_one_line() -> None:
    def refuse(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, text="Traceback\nNo available agent")

    api = RayApi("http://ray:8265", "t0ken", httpx.MockTransport(refuse))
    with pytest.raises(ApplyFailed, match=r"does not start the job pull-.*: No available agent"):
        run(api, WANTED, False, lambda _s: None)
    with pytest.raises(ApplyFailed, match="knows no job x any more"):
        api.job("x")
