"""The watch hears real processes: one that is killed or stopped is found and named, in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.pulse import PULSE_ENV
from deployments.watch import Watch

pytestmark = [pytest.mark.serve, pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
# A rank as far as its pulse is concerned: the main thread sleeps, with the interpreter free for the other.
RANK = "import sys, time; from deployments import pulse; pulse.start(int(sys.argv[1]), pulse.Step()); time.sleep(60)"


class Watched:
    """A watch with processes that it hears, and what it says in the end."""

    def __init__(self, core: str = "") -> None:
        self.said: list[tuple[str, float]] = []
        self.over = threading.Event()
        self.watch = Watch("127.0.0.1", "node-0", "0.29.0", self._give_up)
        self.watch.start()
        self.ranks = [
            subprocess.Popen([sys.executable, "-c", RANK, str(rank)], cwd=ROOT, env=dict(os.environ))
            for rank in range(3)
        ]
        if core:
            self.ranks.append(subprocess.Popen([sys.executable, "-c", core], cwd=ROOT, env=dict(os.environ)))

    def _give_up(self, what: str) -> None:
        self.said.append((what, time.monotonic()))
        self.over.set()

    def wait_until_heard(self) -> None:
        deadline = time.monotonic() + 20
        while len(self.watch._vitals._members) < len(self.ranks):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    yield from _watched(monkeypatch)


def _watched(monkeypatch: pytest.MonkeyPatch, core: str = "") -> Iterator[Watched]:
    monkeypatch.setenv(PULSE_ENV, "")  # restored afterwards
    each = Watched(core)
    yield each
    each.watch.end()
    for process in each.ranks:
        process.kill()
        process.wait()


def _found(watched: Watched, number: signal.Signals) -> tuple[str, float]:
    """What the watch says of rank 1 after a signal, and how many seconds it took."""
    watched.wait_until_heard()
    watched.watch.serving()
    watched.ranks[1].send_signal(number)
    begun = time.monotonic()
    assert watched.over.wait(15)
    ((what, at),) = watched.said
    return what, at - begun


def test_a_killed_rank_is_found_at_once(watched: Watched) -> None:
    what, seconds = _found(watched, signal.SIGKILL)
    assert what == f"rank 1 on node-0 (process {watched.ranks[1].pid}) died"
    assert seconds < 3


def test_a_stopped_rank_is_found_within_ten_seconds(watched: Watched) -> None:
    what, seconds = _found(watched, signal.SIGSTOP)
    assert what.startswith(f"rank 1 on node-0 (process {watched.ranks[1].pid}) has given no sign of life for ")
    assert seconds < 10


# A core that has begun a step and does not end it.
STUCK_CORE = (
    "import time; from deployments import pulse; from deployments.vitals import CORE; step = pulse.Step(); "
    "pulse.start(CORE, step); step.timing(time.sleep)(60)"
)


@pytest.fixture
def with_stuck_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    yield from _watched(monkeypatch, STUCK_CORE)


def test_a_step_that_hangs_while_no_rank_computes_is_found(with_stuck_core: Watched) -> None:
    with_stuck_core.wait_until_heard()
    with_stuck_core.watch.serving()
    assert with_stuck_core.over.wait(20)
    ((what, _),) = with_stuck_core.said
    assert what.startswith("a step of the engine has not ended for ")
    assert "ranks 0, 1, 2 in " in what


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("ORCHESTRATOR_LIMITS", '{"stuck_load_s": 4}')
    yield from _watched(monkeypatch)


def test_a_load_in_which_no_process_does_anything_is_found(impatient: Watched) -> None:
    impatient.wait_until_heard()
    assert impatient.over.wait(15)
    ((what, _),) = impatient.said
    assert "while loading: ranks 0, 1, 2 in " in what


def test_strangers_are_not_heard_and_hurt_nothing(watched: Watched) -> None:
    import json
    import socket

    watched.wait_until_heard()
    door = json.loads(os.environ[PULSE_ENV])
    beat = b'{"rank": 9, "node": "x", "pid": 1, "cpu_s": 0, "memory_bytes": 0, "read_bytes": 0}\n'
    for said in (b"wrong\n" + beat, door["secret"].encode() + b"\nnot a beat\n", b"x" * 100_000, b""):
        with socket.create_connection((door["host"], door["port"]), timeout=5) as connection:
            connection.sendall(said)
    time.sleep(1.5)
    assert set(watched.watch._vitals._members) == {0, 1, 2}
    assert not watched.said


def test_an_engine_that_is_stopped_on_purpose_is_no_trouble(watched: Watched) -> None:
    watched.wait_until_heard()
    watched.watch.serving()
    watched.watch.end()
    for process in watched.ranks:
        process.kill()
    time.sleep(2)
    assert not watched.said
