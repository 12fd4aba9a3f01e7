"""The keys in force: those of the store, the key file's own among them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace

from deployments.governance.access import AccessPolicy, Bounds, Caller
from deployments.governance.key_file import KeyFile
from orchestrator.errors import OrchestratorError
from orchestrator.store.keys import FIRST_ID, Key, KeyStore


class Keyring:
    """Reads keys anew when the store or the key file has changed. `say` hears what is wrong, once.

    A store that cannot be read leaves the rules as they were; a key file that cannot be read puts its key out of force.
    """

    def __init__(self, store: KeyStore, file: KeyFile, bounds: Bounds, say: Callable[[str], None]) -> None:
        self._store, self._file, self._say = store, file, say
        self._seen: tuple[int, str | None] | None = None
        self._trouble = ""
        self._policy = AccessPolicy(bounds=bounds)

    def refresh(self) -> None:
        """Look for changes; cheap where there are none."""
        self._file.refresh()
        digest = self._file.digest
        try:
            seen = (self._store.version(), digest)
            if seen == self._seen:
                return
            if digest is not None:
                self._store.adopt_first(digest)
            keys = self._store.all()
        except (sqlite3.Error, OrchestratorError) as error:
            if str(error) != self._trouble:
                self._say(f"the keys stay as they were: {error}")
            self._trouble = str(error)
            return
        self._seen, self._trouble = seen, ""
        in_force = (key for key in keys if key.revoked_s is None and (key.id != FIRST_ID or digest is not None))
        self._policy = replace(self._policy, callers=tuple(_caller(key) for key in in_force))

    def policy(self) -> AccessPolicy:
        """The rules in force."""
        return self._policy


def _caller(key: Key) -> Caller:
    models = None if key.models is None else frozenset(key.models)
    return Caller(key.id, key.secrets, key.role, models, key.limits, key.expires_s)
