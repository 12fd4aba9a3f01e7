"""The cluster file that `ray up` took, read for one thing: how to reach the head."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConfigError
from orchestrator.validation import first_problem, read_yaml

MAX_FILE_BYTES = 4 * 1024 * 1024
# Ray's own default.
SSH_USER = "ubuntu"

Text = Annotated[str, Field(min_length=1, max_length=4096)]


class _Lax(BaseModel):
    """Ray checks its files itself; here only what is read is checked."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Provider(_Lax):
    type: Text
    head_ip: Text | None = None
    external_head_ip: Text | None = None


class _Auth(_Lax):
    ssh_user: Text = SSH_USER
    ssh_private_key: Text | None = None
    ssh_proxy_command: Text | None = None
    ssh_proxy_use_node_id: bool = False


class _Document(_Lax):
    cluster_name: Text
    provider: _Provider
    auth: _Auth = _Auth()


@dataclass(frozen=True)
class ClusterFile:
    """A Ray cluster file. `head_ip` is None where only Ray can tell it (a cloud's machines)."""

    path: Path
    name: str
    provider: str
    head_ip: str | None
    external_head_ip: str | None
    ssh_user: str
    ssh_private_key: str | None
    ssh_proxy_command: str | None

    @property
    def address(self) -> str | None:
        """The head's address as seen from here, by Ray's own rule; None where only Ray can tell it."""
        return self.external_head_ip or self.head_ip


@dataclass(frozen=True)
class Head:
    """The head of a cluster as SSH reaches it."""

    file: ClusterFile
    host: str
    private_key: Path | None

    @property
    def login(self) -> str:
        return f"{self.file.ssh_user}@{self.host}"

    @property
    def folder_name(self) -> str:
        """What the cluster's folder among the states kept here is called: two clusters never share one."""
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", self.file.name)[:40]
        return f"{readable}-{hashlib.sha256(self.login.encode()).hexdigest()[:8]}"

    def __str__(self) -> str:
        return f"{self.file.name} on {self.login} ({self.file.path})"


def read_cluster_file(path: Path) -> ClusterFile:
    """Read a Ray cluster file; raises `ConfigError` naming the file and what is wrong."""
    document = read_yaml(path, MAX_FILE_BYTES, "Ray cluster file", "`cluster_name` and `provider` at its top")
    if "provider" not in document:
        raise ConfigError(
            f"{path}: no `provider` at its top, so it is not a cluster that `ray up` makes; name the file that it took"
        )
    try:
        read = _Document.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
    provider, auth = read.provider, read.auth
    if auth.ssh_proxy_use_node_id:
        raise ConfigError(
            f"{path}: auth.ssh_proxy_use_node_id: a head behind its node's id cannot be reached from here"
        )
    return ClusterFile(
        path=path,
        name=read.cluster_name,
        provider=provider.type,
        head_ip=provider.head_ip,
        external_head_ip=provider.external_head_ip,
        ssh_user=auth.ssh_user,
        ssh_private_key=auth.ssh_private_key,
        ssh_proxy_command=auth.ssh_proxy_command,
    )
