"""Whether two machines have the same source: a command must mean the same at both ends of a line.

Files that only the head has are not looked at: `ray up` copies, and never removes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import orchestrator

# What `ray up` copies to every host, and of that what a program is made of.
_PACKAGES = ("orchestrator", "deployments")
_KINDS = {".py", ".json", ".yaml", ".html", ".cfg"}


def root() -> Path:
    """The folder that holds the packages of this program."""
    return Path(orchestrator.__file__).parent.parent


def source_files(folder: Path) -> list[str]:
    """The source under `folder`, as sorted paths relative to it."""
    found = (path for package in _PACKAGES for path in (folder / package).rglob("*") if path.suffix in _KINDS)
    return sorted(path.relative_to(folder).as_posix() for path in found)


def digest(folder: Path, files: Sequence[str]) -> str | None:
    """One digest of all `files` with their names; None when one is missing."""
    whole = hashlib.sha256()
    for name in files:
        try:
            content = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError:
            return None
        whole.update(f"{name} {content}\n".encode())
    return whole.hexdigest()
