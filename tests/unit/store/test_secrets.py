"""Keys and tokens: made once, readable by their owner only, never sent where they do not belong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.store.secrets import (
    control_token,
    ensure_api_key,
    ensure_ray_token,
    hash_key,
    read_api_key,
    read_ray_token,
)


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))


def test_a_key_is_made_once_and_for_its_owner_only() -> None:
    path = ensure_api_key()
    key = read_api_key(path)
    assert key.startswith("moe-")
    assert len(key) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_api_key(ensure_api_key()) == key
    path.unlink()
    assert read_api_key(ensure_api_key()) != key


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_refused(mode: int) -> None:
    path = ensure_api_key()
    path.chmod(mode)
    with pytest.raises(ConfigError, match=r"others can read the API key .* chmod 600"):
        read_api_key(path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "is empty"), (b" \n", "is empty"), (b"\xff\xfe", "holds no text")]
)
def test_a_damaged_key_file_says_how_to_get_a_new_one(content: bytes, message: str) -> None:
    path = ensure_api_key()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{message}; remove it and a new key is made"):
        read_api_key(path)


def test_a_missing_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the API key in .*absent: No such file"):
        read_api_key(tmp_path / "absent")


def test_a_digest_does_not_tell_the_key() -> None:
    assert "secret" not in hash_key("secret")
    assert hash_key("secret") != hash_key("secret ")
    assert len(hash_key("é" * 10_000)) == 64


def test_rays_token_is_looked_up_in_rays_own_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_ray_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("from-home\n")
    assert read_ray_token() == "from-home"
    (tmp_path / "elsewhere").write_text("from-path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "elsewhere"))
    assert read_ray_token() == "from-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "from-environment")
    assert read_ray_token() == "from-environment"
    monkeypatch.setenv("RAY_AUTH_TOKEN", " ")
    assert read_ray_token() == "from-path"


def test_a_token_is_made_where_ray_looks_for_it(tmp_path: Path) -> None:
    token = ensure_ray_token()
    path = tmp_path / ".ray" / "auth_token"
    assert path.read_text() == token == ensure_ray_token()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_control_token_follows_rays_and_does_not_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no Ray token in RAY_AUTH_TOKEN or .*auth_token"):
        control_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    token = control_token()
    assert token == control_token() != "a" * 64
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    assert control_token() != token
