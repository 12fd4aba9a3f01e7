"""The operator's state folder and the records kept in it.

$ORCHESTRATOR_HOME or ~/.orchestrator          0700
    api-key                                    0600, the key clients send
    keys.db                                    0600, keys (digests), limits and usage
    front.yaml                                 what the front is to do otherwise, where there is one
    catalog.yaml                               the user's own models and GPUs, where there are any
    ray.json, front.json                       what was started here: process ids, addresses
    cache/                                     demo models
    logs/                                      output of what was started here
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError


def home() -> Path:
    """The state folder, made on first use and readable only by its owner."""
    folder = _where()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot make the state folder {folder}: {error.strerror}; set ORCHESTRATOR_HOME to another"
        ) from None
    return folder


def _where() -> Path:
    return Path(os.environ.get("ORCHESTRATOR_HOME") or Path.home() / ".orchestrator")


def own_catalog() -> Path | None:
    """The user's own catalogue file, None where there is none. Looking for it makes no folder."""
    file = _where() / "catalog.yaml"
    return file if file.is_file() else None


def subfolder(name: str) -> Path:
    """`home()/name`, made on first use."""
    folder = home() / name
    with _writable(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}; set ORCHESTRATOR_HOME to a folder that can be"
        ) from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    with _writable(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def read_record(name: str) -> dict[str, Any] | None:
    """The record `name`.json, or None when there is none (or it is not readable as one)."""
    try:
        record = json.loads((home() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(name: str, record: Mapping[str, Any]) -> None:
    """Keep `record` as `name`.json."""
    write_private(home() / f"{name}.json", json.dumps(record, indent=1) + "\n")


def forget_record(name: str) -> None:
    """Remove the record `name`.json."""
    (home() / f"{name}.json").unlink(missing_ok=True)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock `name` of this state folder: two commands never change the same thing at once."""
    with (subfolder("locks") / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
