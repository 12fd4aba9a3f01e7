"""Secrets: the API key of clients, Ray's own token, and the control token derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.store.home import home, locked, write_private

API_KEY_PREFIX = "moe-"


def ensure_api_key() -> Path:
    """The file with the API key, made on first use; 256 random bits, readable only by its owner."""
    path = home() / "api-key"
    with locked("api-key"):  # of two first deployments at once, both get the same key
        if not path.exists():
            write_private(path, API_KEY_PREFIX + secrets.token_urlsafe(32) + "\n")
    return path


def read_api_key(path: Path) -> str:
    """The API key in `path`; refuses a file that others can read, as ssh does with its keys."""
    try:
        mode = path.stat().st_mode
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"cannot read the API key in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"the API key file {path} holds no text; remove it and a new key is made") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"others can read the API key in {path}; run: chmod 600 {path}")
    if not key:
        raise ConfigError(f"the API key file {path} is empty; remove it and a new key is made")
    return key


def hash_key(key: str) -> str:
    """What is stored and compared instead of a key. A plain digest is enough for 256 random bits."""
    return hashlib.sha256(key.encode()).hexdigest()


def ray_token_path() -> Path:
    """Where Ray looks for its authentication token when none stands in the environment."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"


def read_ray_token() -> str | None:
    """Ray's authentication token, looked up in Ray's own order, or None."""
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    try:
        return ray_token_path().read_text().strip() or None
    except OSError:
        return None


def ensure_ray_token() -> str:
    """Ray's token, made where Ray looks for it if there is none yet (Ray's own maker leaves it world-readable)."""
    if token := read_ray_token():
        return token
    path = ray_token_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, secrets.token_hex(32))
    return ensure_ray_token()


def control_token() -> str:
    """What replicas and the front know each other by: every node of a cluster can derive it from Ray's token.

    Raises `ConfigError` where the cluster has no token.
    """
    token = read_ray_token()
    if token is None:
        raise ConfigError(f"no Ray token in RAY_AUTH_TOKEN or {ray_token_path()}; run: ray get-auth-token --generate")
    return hmac.new(token.encode(), b"moe-orchestrator control v1", hashlib.sha256).hexdigest()
