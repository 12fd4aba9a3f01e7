"""What goes wrong, on the real engine: one clear line, exit code 1, and nothing half-deployed."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

MINI = "kimi-k2-mini"


@pytest.fixture(scope="module")
def running(cli: Cli) -> str:
    """A Ray and a front, with the application `bystander` (an engine that does not start) long gone: names only."""
    cli.refused("deploy", MINI, "--port", str(cli.port), "--timeout", "1")
    return str(cli.port)


def _nothing_is_left_of(cli: Cli, name: str) -> None:
    assert name not in {row["name"] for row in cli.json("status")["models"]}
    deadline = time.monotonic() + 20
    while (left := cli.engine_processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def test_a_timeout_says_which_phase_it_was_and_takes_the_deployment_away(cli: Cli, running: str) -> None:
    line = cli.refused("deploy", MINI, "--port", running, "--timeout", "3")
    assert "not ready in time" in line
    assert "placement" in line
    assert "--timeout" in line
    _nothing_is_left_of(cli, MINI)


def test_an_argument_the_engine_refuses_is_told_in_its_own_words(cli: Cli, running: str) -> None:
    line = cli.refused(
        "deploy", MINI, "--port", running, "--max-num-batched-tokens", "16", "--no-enable-chunked-prefill"
    )
    assert "max_num_batched_tokens" in line
    _nothing_is_left_of(cli, MINI)


def test_an_engine_killed_while_it_loads_is_told_and_taken_away(cli: Cli, running: str) -> None:
    deploying = cli.start("deploy", MINI, "--port", running)
    _kill_first(cli, "VLLM::EngineCore", signal.SIGKILL)
    _, said = deploying.communicate(timeout=120)
    assert deploying.returncode == 1
    assert "error: kimi-k2-mini did not start:" in said
    assert "Traceback" not in said
    _nothing_is_left_of(cli, MINI)


def test_ctrl_c_takes_the_deployment_away(cli: Cli, running: str) -> None:
    deploying = cli.start("deploy", MINI, "--port", running)
    _wait_for(cli, "ServeReplica")
    deploying.send_signal(signal.SIGINT)
    _, said = deploying.communicate(timeout=120)
    assert deploying.returncode == 1
    assert "error: interrupted" in said
    _nothing_is_left_of(cli, MINI)


def test_damaged_weights_are_refused_by_file_before_anything_starts(cli: Cli, running: str, tmp_path: Path) -> None:
    source = next((cli.home / "cache").glob("kimi-k2-mini-*-seed0"))
    copy = tmp_path / "damaged"
    shutil.copytree(source, copy)
    weights = next(copy.glob("*.safetensors"))
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    line = cli.refused("deploy", str(copy), "--port", running)
    assert weights.name in line
    assert "damaged" in line
    weights.unlink()
    assert "no weights" in cli.refused("deploy", str(copy), "--port", running)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("kimi-k2-minni",), "did you mean kimi-k2-mini"),
        ((MINI, "--max-modl-len", "128"), "--max-model-len"),
        ((MINI, "--max-num-seqs", "many"), "not a whole number"),
        ((MINI, "--replicas", "9"), "no place for it"),
        ((MINI, "--kv-cache-memory-bytes", "900G"), "too little memory"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    cli: Cli, running: str, words: tuple[str, ...], told: str
) -> None:
    begun = time.monotonic()
    assert told in cli.refused("deploy", *words, "--port", running)
    assert time.monotonic() - begun < 30
    _nothing_is_left_of(cli, MINI)


def _wait_for(cli: Cli, name: str, timeout_s: float = 120) -> psutil.Process:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for process in cli.processes():
            try:
                if name in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        time.sleep(0.2)
    pytest.fail(f"no process {name!r} within {timeout_s} s")


def _kill_first(cli: Cli, name: str, number: signal.Signals) -> Any:
    return _wait_for(cli, name).send_signal(number)
