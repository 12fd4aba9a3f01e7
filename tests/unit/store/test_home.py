"""The state folder: private, whole, and one line when the disk refuses."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.store.home import (
    forget_record,
    home,
    locked,
    own_catalog,
    read_record,
    subfolder,
    write_private,
    write_record,
)


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "state"
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(folder))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_its_owners_alone(state: Path) -> None:
    assert home() == state
    assert mode(state) == mode(subfolder("logs")) == 0o700


def test_without_a_setting_it_lies_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ORCHESTRATOR_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".orchestrator"


def test_a_folder_that_cannot_be_is_one_line(state: Path) -> None:
    state.parent.mkdir()
    state.write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot make the state folder .* set ORCHESTRATOR_HOME to another"):
        home()


def test_a_private_file_is_whole_and_private(state: Path) -> None:
    path = home() / "secret"
    write_private(path, "one")
    write_private(path, "two")
    assert path.read_text() == "two"
    assert mode(path) == 0o600
    assert list(state.iterdir()) == [path]


def test_a_write_that_breaks_off_leaves_the_file_as_it_was(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home() / "secret"
    write_private(path, "one")

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ConfigError, match=r"cannot write .*secret: No space left on device"):
        write_private(path, "two")
    assert path.read_text() == "one"
    assert list(state.iterdir()) == [path]


def test_a_record_is_read_as_it_was_written() -> None:
    assert read_record("ray") is None
    write_record("ray", {"pid": 5, "url": "http://x"})
    assert read_record("ray") == {"pid": 5, "url": "http://x"}
    forget_record("ray")
    forget_record("ray")
    assert read_record("ray") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_damaged_record_is_no_record(content: bytes) -> None:
    (home() / "front.json").write_bytes(content)
    assert read_record("front") is None


def test_a_lock_is_held_against_others_and_given_back() -> None:
    path = home() / "locks" / "serve"
    with locked("serve"), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_users_catalogue_is_found_without_making_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))
    assert own_catalog() is None
    assert not (tmp_path / "state").exists()
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "catalog.yaml").write_text("{}")
    assert own_catalog() == tmp_path / "state" / "catalog.yaml"
