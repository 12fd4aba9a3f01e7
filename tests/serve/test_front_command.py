"""The front as the operator's side starts and stops it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.deploy.front import FrontControl, ensure_front, running_front, stop_front
from orchestrator.errors import ConfigError
from tests.ports import free_port

pytestmark = pytest.mark.serve


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state of mine"))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    yield
    stop_front()


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def test_it_is_started_once_asked_and_stopped() -> None:
    front = ensure_front(port=free_port())
    assert ensure_front(port=front.port) == front == running_front()
    assert FrontControl(front.control_url).deployments() == []
    with pytest.raises(ConfigError, match=r"already listens on 127\.0\.0\.1:.*orchestrator down"):
        ensure_front(port=free_port())
    processes = family(front.pid)
    assert stop_front()
    assert not stop_front()
    assert [process for process in processes if process.is_running()] == []


def test_after_a_kill_it_starts_again_where_it_was() -> None:
    """HAProxy outlives the front that kept it, and holds the port."""
    front = ensure_front(port=free_port())
    leftover = family(front.pid)[1:]
    psutil.Process(front.pid).kill()
    psutil.wait_procs([psutil.Process(front.pid)], timeout=5)
    assert running_front() is None
    again = ensure_front(port=front.port)
    assert (again.port, again.control_url) == (front.port, front.control_url)
    assert [process for process in leftover if process.is_running()] == []


def test_what_a_killed_front_left_is_stopped_too() -> None:
    front = ensure_front(port=free_port())
    leftover = family(front.pid)[1:]
    psutil.Process(front.pid).kill()
    assert len(leftover) >= 2
    assert stop_front()
    assert [process for process in leftover if process.is_running()] == []


def test_an_address_nobody_can_listen_on_is_told_as_what_it_is() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"is taken by .* \(pid \d+\); stop it or choose another with --port"):
            ensure_front(port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:\d+: Cannot assign requested address"):
        ensure_front("192.0.2.1", free_port())
    with pytest.raises(ConfigError, match="cannot listen on no-such-host"):
        ensure_front("no-such-host.invalid", free_port())
