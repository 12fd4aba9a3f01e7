"""A Ray cluster file held against this computer: what `ray up` needs from here.

Ray reads every mounted file before it runs anything, and ends in a traceback where one is missing. Nothing in its
YAML comes earlier, so that this is asked first.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.cluster.spec import MAX_FILE_BYTES, load_cluster
from orchestrator.errors import ConfigError
from orchestrator.validation import first_problem, read_yaml

_TOKEN = ".ray/auth_token"  # noqa: S105 - a place, not a secret
_PLACEHOLDER = "YOUR-"


class _Auth(BaseModel):
    model_config = ConfigDict(extra="ignore")

    ssh_private_key: str | None = None


class _Provider(BaseModel):
    model_config = ConfigDict(extra="ignore")

    type: str
    project_id: str | None = None


class _UpFile(BaseModel):
    """The keys of a cluster file that name something on this computer, or that nobody can guess."""

    model_config = ConfigDict(extra="ignore")

    provider: _Provider
    auth: _Auth = _Auth()
    file_mounts: dict[str, str] = {}


def missing_here(path: Path, folder: Path) -> tuple[str, ...]:
    """What `ray up`, run in `folder`, would miss: a line each, with the way out; empty where it can go ahead.

    Raises `ConfigError` for a file that is none for `ray up`. Whether hosts can be reached is not asked.
    """
    load_cluster(path)
    document = read_yaml(path, MAX_FILE_BYTES, "cluster file", "`provider` at its top")
    if "provider" not in document:
        raise ConfigError(f"{path}: a list of nodes, for plans only; `ray up` needs a file with `provider`")
    try:
        file = _UpFile.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
    return (*_placeholders(file), *_mounts(file, folder), *_ssh_key(file))


def _placeholders(file: _UpFile) -> Iterator[str]:
    if (file.provider.project_id or "").startswith(_PLACEHOLDER):
        yield f"provider.project_id is still {file.provider.project_id}: put your Google Cloud project there"


def _mounts(file: _UpFile, folder: Path) -> Iterator[str]:
    for remote, local in file.file_mounts.items():
        source = folder / Path(local).expanduser()
        if remote.endswith(_TOKEN):
            yield from _token(source)
        elif not source.exists():
            way_out = "" if Path(local).expanduser().is_absolute() else "; run in the project's folder"
            yield f"file_mounts: there is no {local} in {source.parent}{way_out}"


def _token(source: Path) -> Iterator[str]:
    make = f"ray get-auth-token --generate && chmod 600 {source}"
    try:
        empty = not source.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        yield f"no Ray token in {source}, so the cluster could not be closed to strangers; run: {make}"
        return
    if empty:
        yield f"the Ray token in {source} is empty; run: rm {source} && {make}"
    elif _open_to_others(source):
        yield f"others can read the Ray token in {source}; run: chmod 600 {source}"


def _ssh_key(file: _UpFile) -> Iterator[str]:
    if file.auth.ssh_private_key is None:
        return
    key = Path(file.auth.ssh_private_key).expanduser()
    if not key.is_file():
        yield f"auth.ssh_private_key: there is no {key}; name the key by which the hosts let you in"
    elif _open_to_others(key):
        yield f"others can read the SSH key {key}, so that ssh refuses it; run: chmod 600 {key}"


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
