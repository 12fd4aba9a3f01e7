"""What Ray's launcher left on this machine: which clusters `ray up` brought up, where their heads are, by which key.

Ray keeps a state file for each cluster of SSH hosts (`ray/cluster-NAME.state` in its temporary folder) and the
resolved file of each cluster that it touched (`ray-config-HASH` in the system's); see `local/config.py` and
`commands.py` in `ray/autoscaler/_private` of Ray 2.60.0. These folders are shared with other users of the machine,
so only files of our own are believed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterUnavailable, ConfigError
from orchestrator.remote.cluster_file import ClusterFile, Head, read_cluster_file

# A cloud's API is asked.
HEAD_IP_TIMEOUT_S = 60.0
# A head whose setup failed counts as running, but is not up.
_HEAD_IS_UP = {"ray-node-type": "head", "ray-node-status": "up-to-date"}
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")


def ray_temporary_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where Ray keeps its state files, by Ray's own rule."""
    if named := environ.get("RAY_TMPDIR") or (environ.get("TMPDIR") if platform.startswith("linux") else None):
        return Path(named) / "ray"
    return Path("/tmp/ray")  # noqa: S108 - Ray's, and only files of our own are read


@dataclass(frozen=True)
class BroughtUp:
    """A cluster that `ray up` brought up from this machine, and when, in seconds since 1970."""

    file: ClusterFile
    at_s: float


def clusters_up(folder: Path) -> list[BroughtUp]:
    """The clusters of the files in `folder` that `ray up` brought up from here and `ray down` has not ended."""
    running, touched = _running_heads(), _resolved_clusters()
    if not (running or touched):
        return []
    found = ((file, _up_since(file, running, touched)) for file in _cluster_files(folder))
    return [BroughtUp(file, at_s) for file, at_s in found if at_s is not None]


def find_head(file: ClusterFile) -> Head:
    """The head of a cluster: from its file, or from Ray where only the cloud knows it.

    Raises `ClusterUnavailable` when there is none, `ConfigError` when its key is not here.
    """
    named = file.ssh_private_key or _resolved_key(file)
    key = Path(named).expanduser().absolute() if named else None
    if key is not None and not key.is_file():
        raise ConfigError(f"{file.path}: auth.ssh_private_key: there is no {key}")
    return Head(file, file.address or head_ip(file), key)


def head_ip(file: ClusterFile) -> str:
    """The address of the head by `ray get-head-ip`, which asks the cloud."""
    beside = Path(sys.executable).parent / "ray"
    ray = str(beside) if beside.exists() else shutil.which("ray")
    if ray is None:
        raise ClusterUnavailable(f"only Ray knows the head of {file.name}, and no `ray` is installed here")
    try:
        asked = subprocess.run(
            [ray, "get-head-ip", str(file.path)],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=HEAD_IP_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ClusterUnavailable(f"`ray get-head-ip {file.path}` gave no answer in {HEAD_IP_TIMEOUT_S:.0f} s") from None
    address = read_head_ip(asked.stdout)
    if asked.returncode != 0 or address is None:
        why = last_words(asked.stdout + asked.stderr)
        raise ClusterUnavailable(f"Ray finds no head of {file.name} ({why}); bring it up: ray up {file.path}")
    return address


def last_words(output: str) -> str:
    """The last line of a Ray command, without colours, time and place."""
    lines = [line.strip() for line in _COLOUR.sub("", output).splitlines() if line.strip()]
    return lines[-1].rpartition(" -- ")[2] if lines else "no reason given"


def read_head_ip(output: str) -> str | None:
    """The address in the output of `ray get-head-ip`: its last line; Ray may have warned before."""
    lines = output.split()
    return lines[-1] if lines and _ADDRESS.fullmatch(lines[-1]) else None


def _cluster_files(folder: Path) -> list[ClusterFile]:
    files = []
    for path in sorted(folder.glob("*.y*ml")):
        try:
            files.append(read_cluster_file(path))
        except ConfigError:  # one that `ray up` cannot have taken
            continue
    return files


def _up_since(file: ClusterFile, running: Mapping[tuple[str, str], float], touched: Sequence[Resolved]) -> float | None:
    """When `ray up` brought the cluster up; None when it is not up."""
    if file.head_ip is not None:
        return running.get((file.name, file.head_ip))
    known = next((each for each in touched if each.is_of(file)), None)
    if known is None:
        return None
    try:
        head_ip(file)
    except ClusterUnavailable:
        return None
    return known.at_s


def _running_heads() -> dict[tuple[str, str], float]:
    """Name and head of every cluster of SSH hosts that is up, and since when."""
    found = {}
    for path in ray_temporary_folder(os.environ).glob("cluster-*.state"):
        for address, node in _own_json(path).items():
            if (
                isinstance(node, dict)
                and node.get("state") == "running"
                and _HEAD_IS_UP.items() <= node["tags"].items()
            ):
                found[path.stem.removeprefix("cluster-"), address] = path.stat().st_mtime
    return found


@dataclass(frozen=True)
class Resolved:
    """A cluster that Ray's launcher touched, as it resolved it."""

    config: Mapping[str, Any]
    at_s: float

    def is_of(self, file: ClusterFile) -> bool:
        provider = self.config.get("provider", {}).get("type")
        return self.config.get("cluster_name") == file.name and provider == file.provider


def _resolved_clusters() -> list[Resolved]:
    """The clusters that Ray's launcher touched, newest first."""
    paths = [path for path in Path(tempfile.gettempdir()).glob("ray-config-*") if _is_own(path)]
    read = [(_own_json(path).get("config"), path.stat().st_mtime) for path in paths]
    known = [Resolved(config, at_s) for config, at_s in read if isinstance(config, dict)]
    return sorted(known, key=lambda each: each.at_s, reverse=True)


def _resolved_key(file: ClusterFile) -> str | None:
    """The key that Ray made itself, where the file names none."""
    keys = (each.config.get("auth", {}).get("ssh_private_key") for each in _resolved_clusters() if each.is_of(file))
    return next((key for key in keys if isinstance(key, str)), None)


def _is_own(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid() and path.is_file()
    except OSError:
        return False


def _own_json(path: Path) -> dict[str, Any]:
    """The mapping in a file of our own; empty for anything else."""
    try:
        document = json.loads(path.read_text()) if _is_own(path) else None
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
