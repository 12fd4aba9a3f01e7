"""One download of a folder at a time; where a disk knows no locks it is said, and nothing stops."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from orchestrator.weights.lock import LOCK, held


def test_whoever_comes_second_hears_who_is_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def busy(_file: object, how: int) -> None:
        asked.append(how)
        if how & fcntl.LOCK_NB:
            raise BlockingIOError

    (tmp_path / LOCK).write_text("process 7 on node-1")
    monkeypatch.setattr(fcntl, "flock", busy)
    heard: list[str] = []
    with held(tmp_path, heard.append, pytest.fail):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert heard == ["waiting for process 7 on node-1, which is fetching it"]
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


def test_the_lock_is_let_go_at_the_end(tmp_path: Path) -> None:
    for _ in range(2):
        with held(tmp_path, pytest.fail, pytest.fail):
            pass


def test_a_disk_without_locks_is_said_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_args: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    said: list[str] = []
    with held(tmp_path, pytest.fail, said.append):
        pass
    assert "knows no locks" in said[0]
