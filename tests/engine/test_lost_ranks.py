"""A rank that is lost: found, named, turned away with 503, and the whole group started anew."""

from __future__ import annotations

import http.client
import json
import re
import signal
import time
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MODEL = "kimi-k2-mini"
LAYOUT = ("--tensor-parallel-size", "2", "--pipeline-parallel-size", "2")


@pytest.fixture(scope="module")
def group(apart: Cli) -> Cli:
    """TP 2 × PP 2 over two emulated nodes."""
    said = apart.deploy(MODEL, "--emulate", "--gpus", "2+2xH100", *LAYOUT)
    assert said["layout"] == "TP 2 × PP 2"
    return apart


@dataclass(frozen=True)
class Answer:
    status: int
    retry_after: str | None
    seconds: float


def ask(cli: Cli, timeout_s: float = 30) -> Answer:
    """One short completion; a connection that breaks off counts as 502."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", cli.port, timeout=timeout_s)
    body = json.dumps({"model": MODEL, "prompt": "Hello", "max_tokens": 1})
    headers = {"content-type": "application/json", "authorization": f"Bearer {cli.key()}"}
    try:
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        answer.read()
        return Answer(answer.status, answer.getheader("retry-after"), time.monotonic() - begun)
    except http.client.HTTPException:
        return Answer(502, None, time.monotonic() - begun)
    finally:
        connection.close()


def rank_processes(cli: Cli) -> list[psutil.Process]:
    """The ranks' own processes."""
    return [each for each in cli.processes() if "RayWorkerProc" in " ".join(each.cmdline())]


def trouble(cli: Cli) -> str:
    (row,) = cli.json("status")["models"]
    return str(row["trouble"])


def _until(seconds: float, condition: Any) -> float:
    """Seconds until `condition()` holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.25)
    return time.monotonic() - begun


def _lose(cli: Cli, number: signal.Signals) -> float:
    """Signal one rank; seconds until requests are turned away with 503, after which the group must come back."""
    victim = rank_processes(cli)[1]
    victim.send_signal(number)
    answers: list[Answer] = []

    def refused() -> bool:
        answers.append(ask(cli))
        return answers[-1].status == 503

    found_s = _until(30, refused)
    # The engine itself may turn requests away a moment before its replica has said why.
    found_s += _until(10, lambda: f"(process {victim.pid})" in trouble(cli))
    assert re.search(rf"rank \d on node-\d \(process {victim.pid}\)", trouble(cli))
    assert all(each.retry_after for each in answers if each.status == 503)
    assert {each.status for each in answers} <= {200, 500, 502, 503}
    back_s = _until(400, lambda: ask(cli).status == 200)
    print(f"{number.name}: found and told after {found_s:.1f} s, back after {back_s:.0f} s")
    assert not psutil.pid_exists(victim.pid)
    assert len(rank_processes(cli)) == 4
    return found_s


def test_a_killed_rank_is_found_named_and_the_group_comes_back_as_a_whole(group: Cli) -> None:
    before = {each.pid for each in rank_processes(group)}
    assert len(before) == 4
    assert _lose(group, signal.SIGKILL) < 12  # half of it the command that asks
    assert not before & {each.pid for each in rank_processes(group)}


@pytest.mark.full
def test_a_stopped_rank_is_found_while_requests_hang_on_it(group: Cli) -> None:
    # The request that finds it may hang until it is found: the bound is on that.
    assert _lose(group, signal.SIGSTOP) < 15


@pytest.mark.full
def test_a_rank_stopped_while_loading_fails_the_deployment_within_thirty_seconds(group: Cli) -> None:
    group.json("delete", MODEL)
    deploying = group.start("deploy", MODEL, "--emulate", *LAYOUT, "--port", str(group.port), "--timeout", "300")
    assert deploying.stderr is not None
    said = ""
    while "weights …" not in said:  # the ranks have joined their group and begin to load
        line = deploying.stderr.readline()
        assert line, said
        said += line
    victim = rank_processes(group)[1]
    victim.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    _, rest = deploying.communicate(timeout=120)
    seconds = time.monotonic() - begun
    print(f"found and undone after {seconds:.1f} s")
    assert deploying.returncode == 1
    assert f"(process {victim.pid}) has given no sign of life" in rest
    assert seconds < 60
    assert group.json("status")["models"] == []
    assert not group.engine_processes()


@pytest.mark.full
def test_a_node_that_is_lost_is_named_and_a_lost_head_is_deployed_anew(group: Cli) -> None:
    """Without a fault-tolerant head the deployment is lost with it: 503 until `deploy` brings it back."""
    group.deploy(MODEL, "--emulate", *LAYOUT)
    record = json.loads((group.home / "ray.json").read_text())
    _kill_tree(record["others"][0]["pid"])
    found_s = _until(30, lambda: ask(group).status == 503) + _until(10, lambda: "on node-1" in trouble(group))
    print(f"node lost: found after {found_s:.1f} s: {trouble(group)}")
    assert found_s < 12  # half of it the command that asks
    _kill_tree(record["pid"])
    _until(30, lambda: ask(group).status == 503)
    assert ask(group).retry_after
    group.json("down")
    assert group.deploy(MODEL, "--emulate", "--gpus", "2+2xH100", *LAYOUT)["action"] == "deployed"
    assert ask(group).status == 200


def _kill_tree(pid: int) -> None:
    """A power cut: a process and all that it started, at once."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        if psutil.pid_exists(process.pid):
            process.kill()
