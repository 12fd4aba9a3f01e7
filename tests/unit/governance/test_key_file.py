"""The key file: a change is in force at the next look, and a file that cannot be read has no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.governance.key_file import KeyFile
from orchestrator.store.secrets import hash_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "api-key", "moe-one")
    return tmp_path / "api-key"


def write(path: Path, key: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(key + "\n")
    temporary.chmod(0o600)
    temporary.replace(path)


def test_a_changed_file_changes_the_rules(path: Path) -> None:
    keys = KeyFile(path, pytest.fail)
    assert keys.digest != hash_key("moe-one")
    keys.refresh()
    assert keys.digest == hash_key("moe-one")
    write(path, "moe-two")
    keys.refresh()
    assert keys.digest != hash_key("moe-one")
    assert keys.digest == hash_key("moe-two")


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = KeyFile(path, pytest.fail)
    keys.refresh()
    monkeypatch.setattr(Path, "read_text", pytest.fail)
    keys.refresh()
    assert keys.digest == hash_key("moe-one")


@pytest.mark.parametrize("spoil", ["remove", "empty", "no text", "readable by others"])
def test_a_file_that_cannot_be_used_has_no_key_and_is_told_once(path: Path, spoil: str) -> None:
    said: list[str] = []
    keys = KeyFile(path, said.append)
    keys.refresh()
    match spoil:
        case "remove":
            path.unlink()
        case "empty":
            path.write_text("")
        case "no text":
            path.write_bytes(b"\xff\xfe")
        case _:
            path.chmod(0o644)
    for _ in range(3):
        keys.refresh()
    assert keys.digest is None
    assert len(said) == 1
    assert said[0].startswith("the key of the key file is not accepted: ")
    write(path, "moe-back")
    keys.refresh()
    assert keys.digest == hash_key("moe-back")
