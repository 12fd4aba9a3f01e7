"""The manifest that seals a checkpoint, and the check that tells a whole folder from a damaged one.

A folder without a manifest is not a model: the manifest is written last, after every file it names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.demo.staging import make_durable

MANIFEST = "MANIFEST.json"
# Raise it whenever a builder writes other bytes for the same options: older folders are then built again.
FORMAT_VERSION = 1
# Every sealed file is given this one time of last change (2025-02-07 00:00 UTC, the day the dense model was
# published). Whoever writes to a file moves its time, so an equal time and size stand for equal bytes
# without reading them; a copy that lost its times is hashed once and sealed again.
SEALED_MTIME_S = 1_738_886_400
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileFacts:
    """Size and hash of one sealed file."""

    size_bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def identity(model: str, options: Mapping[str, object]) -> dict[str, object]:
    """What a folder claims to hold."""
    return {"format_version": FORMAT_VERSION, "model": model, "options": dict(options)}


def seal(folder: Path, claim: Mapping[str, object]) -> None:
    """Hash every file in `folder`, put all on the disk for good, and write the manifest last."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        facts = FileFacts(size_bytes=path.stat().st_size, sha256=sha256_of(path))
        files[path.relative_to(folder).as_posix()] = asdict(facts)
        make_durable(path)
        _stamp(path)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({**claim, "files": files}, indent=2, sort_keys=True) + "\n")
    make_durable(manifest)
    make_durable(folder)


def find_damage(folder: Path, claim: Mapping[str, object], *, full: bool = False) -> str | None:
    """Why `folder` is not the sealed checkpoint of `claim`, in a few words; None when it is.

    Sizes are always compared; bytes are hashed when `full`, and where a file's time is not the sealed one.
    """
    if not folder.is_dir():
        return "it does not exist"
    try:
        document = json.loads((folder / MANIFEST).read_text())
        files = {name: FileFacts(**facts) for name, facts in document.pop("files").items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} cannot be read"
    if document != claim:
        return "it was built by another version or with other options"
    damages = (_file_damage(folder / name, facts, full=full) for name, facts in files.items())
    return next((damage for damage in damages if damage), None)


def _file_damage(path: Path, facts: FileFacts, *, full: bool) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    status = path.stat()
    if status.st_size != facts.size_bytes:
        return f"{path.name} has {status.st_size} bytes, not {facts.size_bytes}"
    untouched = status.st_mtime == SEALED_MTIME_S
    if untouched and not full:
        return None
    if sha256_of(path) != facts.sha256:
        return f"{path.name} holds other bytes than were built"
    if not untouched:
        with contextlib.suppress(OSError):  # a read-only cache is hashed each time, and is no less whole
            _stamp(path)
    return None


def _stamp(path: Path) -> None:
    os.utime(path, (SEALED_MTIME_S, SEALED_MTIME_S))
