"""What every source of weights can do: say what it holds, and fetch one file of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import CheckpointUnavailable

Advance = Callable[[int], None]
PART_SUFFIX = ".part"


class Unreachable(CheckpointUnavailable):
    """Nobody answers there: what is whole on this machine has to do."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file, with the digest its publisher tells: SHA-256 of large files, the git blob of small ones."""

    name: str
    size_bytes: int
    sha256: str | None = None
    git_sha1: str | None = None


@dataclass(frozen=True)
class Listing:
    """All that a source holds at one revision."""

    revision: str
    files: Mapping[str, RemoteFile]


class Origin(Protocol):
    """A source of weights."""

    def listing(self) -> Listing:
        """Raises `Unreachable` where nobody answers, `CheckpointUnavailable` or `UnknownModel` for a refusal."""

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> None:
        """Put `file` into `folder` under its name, whole or not at all; what is there already is left alone."""

    def kept_bytes(self, listing: Listing, file: RemoteFile, folder: Path) -> int:
        """Bytes of `file` that a broken transfer left, and that need not be moved again."""


def part_of(target: Path, revision: str) -> Path:
    """Where a file of a revision grows until it is whole."""
    return target.with_name(f".{target.name}.{revision[:12]}{PART_SUFFIX}")
