"""API keys as they are kept: what each may do, and digests of its secrets. The keys themselves are kept nowhere."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.store.database import transaction
from orchestrator.store.limits import NO_LIMITS, Limits
from orchestrator.store.secrets import API_KEY_PREFIX, hash_key

ROLES = ("admin", "user")
# The key that `deploy` makes, which also lies in the state folder's `api-key`.
FIRST_ID, FIRST_NAME = "key_first", "first"
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Secret:
    """A key's digest, and until when (Unix time) it is good: None as long as the key is."""

    digest: str
    until_s: int | None = None


@dataclass(frozen=True)
class Key:
    """One key. `models` None means all; times are Unix times in seconds."""

    id: str
    name: str
    role: str = "user"
    models: tuple[str, ...] | None = None
    limits: Limits = NO_LIMITS
    created_s: int = 0
    expires_s: int | None = None
    revoked_s: int | None = None
    secrets: tuple[Secret, ...] = ()

    def state(self, now_s: float) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_s is not None:
            return "revoked"
        return "expired" if self.expires_s is not None and self.expires_s <= now_s else "active"

    def to_json(self, now_s: float) -> dict[str, Any]:
        """What may be shown: no digest."""
        return {
            "id": self.id, "name": self.name, "state": self.state(now_s), "role": self.role,
            "models": None if self.models is None else list(self.models), "limits": self.limits.to_json(),
            "created_s": self.created_s, "expires_s": self.expires_s, "revoked_s": self.revoked_s,
            "old_key_until_s": max((each.until_s for each in self.secrets if each.until_s), default=None),
        }  # fmt: skip


def new_secret() -> str:
    """A key of 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: sqlite3.Connection, now_s: Callable[[], float]) -> None:
        self._database = database
        self._now_s = now_s

    def all(self) -> list[Key]:
        """Every key there ever was, in the order they were made."""
        held: dict[str, list[Secret]] = {}
        for digest, key_id, until_s in self._database.execute(
            "SELECT digest, key_id, until_s FROM secrets ORDER BY made_s, rowid"
        ):
            held.setdefault(key_id, []).append(Secret(digest, until_s))
        rows = self._database.execute(
            "SELECT id, name, role, models, limits, created_s, expires_s, revoked_s FROM keys ORDER BY created_s, rowid"
        )
        return [_key(row, tuple(held.get(row[0], ()))) for row in rows]

    def version(self) -> int:
        """A number that changes when another connection has written."""
        (version,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(version)

    def create(
        self,
        name: str,
        role: str = "user",
        models: tuple[str, ...] | None = None,
        limits: Limits = NO_LIMITS,
        lifetime_s: int | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, which is told this once. Raises `ConfigError` on a name in use."""
        _check(name, role, models)
        secret, now_s = new_secret(), int(self._now_s())
        expires_s = None if lifetime_s is None else now_s + lifetime_s
        key = Key(f"key_{secrets.token_hex(6)}", name, role, models, limits, now_s, expires_s)
        with transaction(self._database):
            if self._find_active(name) is not None or name == FIRST_NAME:
                raise ConfigError(f"there is a key {name!r} already; revoke it first, or choose another name")
            self._insert(key)
            self._add_secret(key.id, hash_key(secret), now_s)
        return self.get(key.id), secret

    def revoke(self, name: str) -> Key:
        """The key is refused from now on, under all of its secrets. Raises `ConfigError` where there is none."""
        with transaction(self._database):
            key = self._active(name)
            self._database.execute("UPDATE keys SET revoked_s = ? WHERE id = ?", (int(self._now_s()), key.id))
        return self.get(key.id)

    def rotate(self, name: str, grace_s: int) -> tuple[Key, str]:
        """A new secret for a key; the one before stays good for `grace_s`, older ones end now."""
        secret, now_s = new_secret(), int(self._now_s())
        with transaction(self._database):
            key = self._active(name)
            self._database.execute("DELETE FROM secrets WHERE key_id = ? AND until_s IS NOT NULL", (key.id,))
            self._database.execute("UPDATE secrets SET until_s = ? WHERE key_id = ?", (now_s + grace_s, key.id))
            self._add_secret(key.id, hash_key(secret), now_s)
        return self.get(key.id), secret

    def limit(self, name: str, limits: Limits) -> Key:
        """Other limits for a key."""
        with transaction(self._database):
            key = self._active(name)
            self._database.execute("UPDATE keys SET limits = ? WHERE id = ?", (json.dumps(limits.to_json()), key.id))
        return self.get(key.id)

    def adopt_first(self, digest: str) -> Key:
        """The key of the key file: an administrator's. A file with another key replaces it, revoked or not."""
        with transaction(self._database):
            known = next((key for key in self.all() if key.id == FIRST_ID), None)
            if known is None:
                known = Key(FIRST_ID, FIRST_NAME, "admin", created_s=int(self._now_s()))
                self._insert(known)
            if digest not in {each.digest for each in known.secrets}:
                self._database.execute("DELETE FROM secrets WHERE key_id = ? OR digest = ?", (FIRST_ID, digest))
                self._database.execute("UPDATE keys SET revoked_s = NULL WHERE id = ?", (FIRST_ID,))
                self._add_secret(FIRST_ID, digest, int(self._now_s()))
        return self.get(FIRST_ID)

    def get(self, key_id: str) -> Key:
        """The key of an id. Raises `ConfigError` where there is none."""
        for key in self.all():
            if key.id == key_id:
                return key
        raise ConfigError(f"there is no key {key_id!r}")

    def _find_active(self, name: str) -> Key | None:
        return next((key for key in self.all() if name in (key.name, key.id) and key.revoked_s is None), None)

    def _active(self, name: str) -> Key:
        key = self._find_active(name)
        if key is None:
            names = ", ".join(each.name for each in self.all() if each.revoked_s is None) or "none"
            raise ConfigError(f"there is no key {name!r} in force; there are: {names}")
        return key

    def _insert(self, key: Key) -> None:
        models = None if key.models is None else json.dumps(key.models)
        self._database.execute(
            "INSERT INTO keys (id, name, role, models, limits, created_s, expires_s) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key.id, key.name, key.role, models, json.dumps(key.limits.to_json()), key.created_s, key.expires_s),
        )

    def _add_secret(self, key_id: str, digest: str, now_s: int) -> None:
        self._database.execute("INSERT INTO secrets (digest, key_id, made_s) VALUES (?, ?, ?)", (digest, key_id, now_s))


def _key(row: Any, held: tuple[Secret, ...]) -> Key:
    key_id, name, role, models, limits, created_s, expires_s, revoked_s = row
    allowed = None if models is None else tuple(json.loads(models))
    return Key(key_id, name, role, allowed, Limits.from_json(json.loads(limits)), created_s, expires_s, revoked_s, held)


def _check(name: str, role: str, models: tuple[str, ...] | None) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name.startswith(API_KEY_PREFIX):
        raise ConfigError(
            f"{name[:80]!r} is no name for a key; use 1 to {_LONGEST_NAME} printable characters that are not a key"
        )
    if role not in ROLES:
        raise ConfigError(f"there is no role {role!r}; the roles are {' and '.join(ROLES)}")
    if models is not None and (not models or not all(models)):
        raise ConfigError("name at least one model, or leave --models out for all")
