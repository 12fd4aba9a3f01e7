"""The manifest that says a folder of weights is whole: written last, after every file it names was checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import CheckpointUnavailable

MANIFEST = "WEIGHTS.json"
FORMAT_VERSION = 1
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class FileRecord:
    """One file as it was when its bytes were last read. A file's time moves with whoever writes to it."""

    size_bytes: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """What a folder holds: whose weights, from where, at which revision, and every file.

    `revision` is a commit of the hub; of other sources a digest of the names, sizes and versions of their files.
    """

    model: str
    source: str
    revision: str
    files: Mapping[str, FileRecord]

    @property
    def size_bytes(self) -> int:
        return sum(record.size_bytes for record in self.files.values())


@dataclass(frozen=True)
class Damage:
    """A file that is not what the manifest says, in words for people."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} {self.what}"


@dataclass(frozen=True)
class Digests:
    """A file's SHA-256, and its name as a git blob, which is what the hub tells of small files."""

    sha256: str
    git_sha1: str


def digests_of(path: Path, advance: Callable[[int], None] = lambda _n: None) -> Digests:
    """Both digests in one reading; `advance` hears of every piece."""
    sha256, git = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    git.update(f"blob {path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            git.update(chunk)
            advance(len(chunk))
    return Digests(sha256.hexdigest(), git.hexdigest())


def record_of(path: Path, sha256: str) -> FileRecord:
    status = path.stat()
    return FileRecord(status.st_size, sha256, status.st_mtime_ns)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of `folder`, or None where there is none that can be read."""
    try:
        return parse_manifest((folder / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def parse_manifest(text: str) -> Manifest:
    """Raises `ValueError` for what is no manifest of this version."""
    try:
        document = json.loads(text)
        if document.pop("format_version") != FORMAT_VERSION:
            raise ValueError("another version")
        files = {str(name): FileRecord(**record) for name, record in document.pop("files").items()}
        return Manifest(files=files, **document)
    except (TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a manifest: {error}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Put the manifest in its place in one step, on the disk for good."""
    files = {name: asdict(record) for name, record in sorted(manifest.files.items())}
    document = {"format_version": FORMAT_VERSION, **asdict(manifest), "files": files}
    unfinished = folder / f".{MANIFEST}.{os.getpid()}"
    with unfinished.open("w") as file:
        file.write(json.dumps(document, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(folder / MANIFEST)


def forget(folder: Path) -> None:
    """From now on the folder does not look complete."""
    (folder / MANIFEST).unlink(missing_ok=True)


def damage_by_size(folder: Path, manifest: Manifest) -> tuple[Damage, ...]:
    """Files that are missing or have another size; no byte is read."""
    found = ((name, _size_damage(folder / name, record)) for name, record in manifest.files.items())
    return tuple(Damage(name, what) for name, what in found if what)


def touched(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Files that somebody has written, or copied, since their bytes were read."""
    return tuple(
        name for name, record in manifest.files.items() if (folder / name).stat().st_mtime_ns != record.mtime_ns
    )


def _size_damage(path: Path, record: FileRecord) -> str:
    try:
        size_bytes = path.stat().st_size
    except OSError:
        return "is missing"
    return "" if size_bytes == record.size_bytes else f"has {size_bytes} bytes instead of {record.size_bytes}"


def complete(folder: Path) -> Manifest | None:
    """The manifest, if every file it names is there in its size."""
    manifest = read_manifest(folder)
    return manifest if manifest is not None and not damage_by_size(folder, manifest) else None


def safe_name(name: str) -> str:
    """A file's name, if it stays inside its folder. Raises `CheckpointUnavailable` otherwise."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise CheckpointUnavailable(f"a file is named {name!r}, which leads out of its folder; nothing was fetched")
    return name
