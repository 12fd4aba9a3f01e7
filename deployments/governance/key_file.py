"""The access rules as an operator keeps them: a file with the API key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deployments.governance.access import AccessPolicy
from orchestrator.errors import OrchestratorError
from orchestrator.store.secrets import hash_key, read_api_key


class KeyFile:
    """The rules of an API key file, read anew when it changes. `say` hears when nobody is let in any more, and why."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._stamp: tuple[int, int] | None = None
        self._policy = AccessPolicy()

    def refresh(self) -> None:
        """Read the file if it changed. A file that cannot be read lets nobody in."""
        try:
            status = self._path.stat()
            # The time of the last change of the file or of who may read it.
            stamp = (status.st_ctime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            self._policy = AccessPolicy(frozenset({hash_key(read_api_key(self._path))}))
            self._stamp = stamp
        except (OSError, OrchestratorError) as error:
            if self._policy.key_digests:
                self._say(f"no key is accepted: {error}")
            self._policy, self._stamp = AccessPolicy(), None

    def policy(self) -> AccessPolicy:
        """The rules in force."""
        return self._policy
