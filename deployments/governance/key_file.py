"""The API key as an operator keeps it: a file, read anew when it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import OrchestratorError
from orchestrator.store.secrets import hash_key, read_api_key


class KeyFile:
    """The digest of an API key file's key. `say` hears when its key is accepted no more, and why."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._stamp: tuple[int, int] | None = None
        self.digest: str | None = None

    def refresh(self) -> None:
        """Read the file if it changed. A file that cannot be read has no key."""
        try:
            status = self._path.stat()
            # The time of the last change of the file or of who may read it.
            stamp = (status.st_ctime_ns, status.st_ino)
            if stamp == self._stamp:
                return
            self.digest = hash_key(read_api_key(self._path))
            self._stamp = stamp
        except (OSError, OrchestratorError) as error:
            if self.digest is not None:
                self._say(f"the key of the key file is not accepted: {error}")
            self.digest, self._stamp = None, None
