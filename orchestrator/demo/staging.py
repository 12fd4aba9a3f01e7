"""Folders that are whole or absent: one builder at a time, out of sight, then one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import CheckpointUnavailable
from orchestrator.units import format_bytes

Progress = Callable[[str], None]

_WAYS_OUT = {
    errno.ENOSPC: "free some space, or ",
    errno.EDQUOT: "free some of your quota, or ",
    errno.EACCES: "make it writable, or ",
    errno.EROFS: "make it writable, or ",
}


@contextlib.contextmanager
def exclusive(lock_file: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold `lock_file` for the length of the block; `waiting` is called once if another process has it.

    The kernel lets go of the lock when its holder ends, however it ends, so none can be left behind.
    """
    import fcntl  # not on Windows, where no demo model can be served

    with lock_file.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A temporary folder in `parent`, the only one with this prefix: what a killed process left goes first.

    The caller holds the lock that makes it the only user of the prefix.
    """
    for leftover in parent.glob(f"{prefix}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as scratch:
        yield Path(scratch)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that takes its place when the block ends well, and vanishes otherwise.

    The caller holds the lock of `target`.
    """
    with scratch_folder(target.parent, f".{target.name}.building-") as scratch:
        fresh = scratch / "new"
        fresh.mkdir()
        yield fresh
        if target.exists():
            target.rename(scratch / "old")
        fresh.rename(target)
    make_durable(target.parent)


def require_space(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raises `CheckpointUnavailable` when the disk of `folder` has less than `needed_bytes` left."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise CheckpointUnavailable(
            f"{purpose} needs {format_bytes(needed_bytes)} of disk in {folder}, and "
            f"{format_bytes(free_bytes)} are free; free some, or choose a cache folder on another disk"
        )


@contextlib.contextmanager
def plain_disk_errors(folder: Path, *, purpose: str) -> Iterator[None]:
    """Turns what the operating system says about `folder` into one line with the way out."""
    try:
        yield
    except OSError as failure:
        cause, way_out = failure.strerror or str(failure), _WAYS_OUT.get(failure.errno or 0, "")
        raise CheckpointUnavailable(
            f"{purpose} failed in {folder}: {cause}; {way_out}choose another cache folder"
        ) from failure


def make_durable(path: Path) -> None:
    """Put a file's bytes, or a folder's names, on the disk for good: a power cut cannot undo it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
