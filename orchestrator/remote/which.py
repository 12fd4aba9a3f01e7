"""Which cluster a command means: one elsewhere, by its file, or what is reached from here without SSH."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.remote.cluster_file import ClusterFile, read_cluster_file
from orchestrator.remote.ray_up import BroughtUp
from orchestrator.store.home import forget_record, read_record, write_record

# Named relative to the folder that `ray up` is run in.
CLUSTER_CONFIGS = Path("cluster-configs")
HERE = "local"
RECORD = "cluster"
_ADDRESS_VARIABLES = ("RAY_DASHBOARD_URL", "RAY_API_SERVER_ADDRESS")


def choose(
    cluster: Path | None,
    address: str | None,
    environ: Mapping[str, str],
    last_used: Path | None,
    brought_up: Callable[[], Sequence[BroughtUp]],
    here_since_s: Callable[[], float | None],
    say: Callable[[str], object],
) -> ClusterFile | None:
    """The file of the cluster elsewhere that is meant, or None for what is reached from here.

    In order: `--cluster`, `--address`, RAY_DASHBOARD_URL, the cluster used last, the one that `ray up` brought up
    after the Ray that runs here, that Ray. `here_since_s` tells when that one began (None: there is none), in seconds
    since 1970. Raises `ConfigError` when two are named, or when `ray up` brought up several.
    """
    if cluster is not None and address is not None:
        raise ConfigError("name one cluster, not both --cluster and --address")
    if cluster is not None:
        return read_cluster_file(cluster)
    if address is not None or any(environ.get(name) for name in _ADDRESS_VARIABLES):
        return None
    if last_used is not None:
        return _read_last_used(last_used)
    found = brought_up()
    if not found:
        return None
    since_s = here_since_s()
    newer = [each.file for each in found if since_s is None or each.at_s > since_s]
    if len(newer) > 1:
        raise ConfigError(
            f"`ray up` brought up several clusters: {_named(newer)}; say which with --cluster FILE, "
            f"or --address {HERE} for this machine"
        )
    if not newer:
        say(f"note: a Ray runs here and is meant; `ray up` brought up {_named([each.file for each in found])}")
    return newer[0] if newer else None


def _named(files: Sequence[ClusterFile]) -> str:
    return ", ".join(f"{file.name} (--cluster {file.path})" for file in files)


def _read_last_used(path: Path) -> ClusterFile:
    if not path.exists():
        raise ConfigError(
            f"the cluster used last is that of {path}, which is gone; name another with --cluster FILE, "
            f"or --address {HERE} for this machine"
        )
    return read_cluster_file(path)


def last_used() -> Path | None:
    """The file of the cluster elsewhere that was used last; None when that was this machine, or none."""
    named = (read_record(RECORD) or {}).get("file")
    return Path(named) if isinstance(named, str) else None


def remember(file: ClusterFile) -> None:
    """Commands that name no cluster mean this one from now on."""
    write_record(RECORD, {"file": str(file.path.absolute())})


def forget(file: ClusterFile | None = None) -> None:
    """Commands that name no cluster mean this machine again; given a file, only if they meant that one."""
    if file is None or last_used() == file.path.absolute():
        forget_record(RECORD)
