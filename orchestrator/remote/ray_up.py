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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import ClusterUnavailable, ConfigError
from orchestrator.remote.cluster_file import ClusterFile, Head, read_cluster_file

# A cloud's API is asked.
HEAD_IP_TIMEOUT_S = 60.0
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")


def ray_temporary_folder(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where Ray keeps its state files, by Ray's own rule."""
    if named := environ.get("RAY_TMPDIR") or (environ.get("TMPDIR") if platform.startswith("linux") else None):
        return Path(named) / "ray"
    return Path("/tmp/ray")  # noqa: S108 - Ray's, and only files of our own are read


def clusters_up(folder: Path) -> list[ClusterFile]:
    """The cluster files in `folder` whose clusters `ray up` brought up from here and `ray down` has not ended."""
    running, touched = _running_heads(), _resolved_clusters()
    if not (running or touched):
        return []
    return [file for file in _cluster_files(folder) if _is_up(file, running, touched)]


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
        why = ([line for line in (asked.stderr + asked.stdout).splitlines() if line.strip()] or ["no reason given"])[-1]
        raise ClusterUnavailable(f"{file.name} has no head that runs ({why.strip()}); bring it up: ray up {file.path}")
    return address


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


def _is_up(file: ClusterFile, running: set[tuple[str, str]], touched: list[dict[str, Any]]) -> bool:
    if file.head_ip is not None:
        return (file.name, file.head_ip) in running
    if not any(_is_of(config, file) for config in touched):
        return False
    try:
        return bool(head_ip(file))
    except ClusterUnavailable:
        return False


def _running_heads() -> set[tuple[str, str]]:
    """Name and head of every cluster of SSH hosts that is up."""
    found = set()
    for path in ray_temporary_folder(os.environ).glob("cluster-*.state"):
        for address, node in _own_json(path).items():
            is_head = isinstance(node, dict) and node.get("tags", {}).get("ray-node-type") == "head"
            if is_head and node.get("state") == "running":
                found.add((path.stem.removeprefix("cluster-"), address))
    return found


def _resolved_clusters() -> list[dict[str, Any]]:
    """The clusters that Ray's launcher touched, newest first, as it resolved them."""
    paths = [path for path in Path(tempfile.gettempdir()).glob("ray-config-*") if _is_own(path)]
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    configs = [_own_json(path).get("config") for path in paths]
    return [config for config in configs if isinstance(config, dict)]


def _resolved_key(file: ClusterFile) -> str | None:
    """The key that Ray made itself, where the file names none."""
    for config in _resolved_clusters():
        key = config.get("auth", {}).get("ssh_private_key") if _is_of(config, file) else None
        if isinstance(key, str):
            return key
    return None


def _is_of(config: dict[str, Any], file: ClusterFile) -> bool:
    return config.get("cluster_name") == file.name and config.get("provider", {}).get("type") == file.provider


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
