"""A folder or an object store as a source, by fsspec: `file://`, `s3://`, `gs://` and what else it reads."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from orchestrator.errors import CheckpointUnavailable, OrchestratorError
from orchestrator.weights.manifest import MANIFEST, Manifest, parse_manifest, safe_name
from orchestrator.weights.origin import Advance, Listing, RemoteFile, Unreachable, part_of
from orchestrator.weights.source import StoreSource

CHUNK_BYTES = 8 << 20
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hdfs": "pyarrow"}


class StoreOrigin:
    """Everything below one URL. Where a folder was written by `pull --to`, its manifest tells the digests."""

    def __init__(self, source: StoreSource) -> None:
        self._url = source.url
        self._protocol = source.url.partition("://")[0]

    def listing(self) -> Listing:
        with self._plain_errors():
            disk, root = fsspec.core.url_to_fs(self._url)
            # A listing that was kept from an earlier look would hide what has been put there since.
            disk.invalidate_cache()
            found = disk.find(root, detail=True)
            rows = {safe_name(path[len(root) :].lstrip("/")): row for path, row in found.items()}
            manifest = self._manifest(disk, root) if MANIFEST in rows else None
            versions = {name: (int(row["size"]), _version(row)) for name, row in rows.items()}
        if not rows:
            raise CheckpointUnavailable(
                f"there is nothing below {self._url}; is the path right, and readable from here?"
            )
        known = manifest.files if manifest else {}
        files = {
            name: RemoteFile(name, size_bytes, known[name].sha256 if name in known else None)
            for name, (size_bytes, _) in versions.items()
            if name != MANIFEST
        }
        return Listing(manifest.revision if manifest else _digest(versions), files)

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> None:
        """Goes on where an earlier transfer of the same revision broke off."""
        target, part = folder / file.name, part_of(folder / file.name, listing.revision)
        if target.is_file():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._plain_errors():
            disk, root = fsspec.core.url_to_fs(self._url)
            begun_bytes = self.kept_bytes(listing, file, folder)
            with disk.open(f"{root.rstrip('/')}/{file.name}", "rb") as remote, part.open("ab") as local:
                local.truncate(begun_bytes)
                remote.seek(begun_bytes)
                while chunk := remote.read(CHUNK_BYTES):
                    local.write(chunk)
                    advance(len(chunk))
        part.replace(target)

    def kept_bytes(self, listing: Listing, file: RemoteFile, folder: Path) -> int:
        try:
            size_bytes = part_of(folder / file.name, listing.revision).stat().st_size
        except OSError:
            return 0
        return size_bytes if size_bytes <= file.size_bytes else 0

    @staticmethod
    def _manifest(disk: Any, root: str) -> Manifest | None:
        try:
            return parse_manifest(disk.cat_file(f"{root.rstrip('/')}/{MANIFEST}").decode())
        except ValueError:
            return None

    @contextlib.contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Every store has exceptions of its own; whichever it is, the line names the store and the way out."""
        try:
            yield
        except OrchestratorError:
            raise
        except ImportError as error:
            package = _PACKAGES.get(self._protocol, "the package it names")
            raise CheckpointUnavailable(
                f"{self._protocol}:// needs {package}, which is not installed here ({_line(error)}); "
                f"pip install {package}"
            ) from error
        except ValueError as error:
            raise CheckpointUnavailable(f"{self._url} is no URL that fsspec reads: {_line(error)}") from error
        except FileNotFoundError as error:
            raise CheckpointUnavailable(f"{self._url} holds no such file: {_line(error)}") from error
        except PermissionError as error:
            raise CheckpointUnavailable(f"{self._url} may not be read from here: {_line(error)}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None:
                raise  # this machine's own disk
            raise Unreachable(f"{self._url} cannot be read: {type(error).__name__}: {_line(error)}") from error


def _version(row: dict[str, Any]) -> str:
    """What changes with an object's bytes, as far as its store tells."""
    told = [row.get(key) for key in ("ETag", "etag", "md5Hash", "generation", "content_md5", "mtime", "created")]
    return str([str(value) for value in told if value is not None])


def _digest(versions: dict[str, tuple[int, str]]) -> str:
    lines = [f"{name}\t{size_bytes}\t{version}\n" for name, (size_bytes, version) in sorted(versions.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:40]


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
