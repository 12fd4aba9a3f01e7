"""Where a cluster is to be, and what of that can be refused before anything is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.catalog.gpus import GpuTable, shipped_gpus
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan

Provider = Literal["local", "aws", "gcp"]
# The longest name that AWS and GCP take for a machine, less what Ray adds to it.
_CLUSTER_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True)
class Target:
    """Where the cluster is to be.

    name: of the cluster; path: of the file, for the commands in its head; hosts: addresses for `local`, placeholders
    where there are none; spot: rent what the cloud may take back; rehearsal: CPUs stand in for the GPUs;
    made_by: the command that writes the file; gpus: what is known of the GPUs that the plan names.
    """

    provider: Provider
    name: str
    path: str
    made_by: str
    hosts: tuple[str, ...] = ()
    spot: bool = False
    rehearsal: bool = False
    gpus: GpuTable = field(default_factory=shipped_gpus, repr=False)


def check_name(name: str) -> None:
    """Raises `ConfigError` for a name that machines and pods cannot have."""
    if not _CLUSTER_NAME.fullmatch(name):
        raise ConfigError(
            f"the cluster's name is {name!r}; it must be up to 40 lower-case letters, digits and '-', "
            "and begin with a letter"
        )


def check_gpus(plan: Plan, gpus: GpuTable) -> None:
    """Raises `ConfigError` for GPUs that the installed engine does not run on."""
    for kind in sorted({node.gpu_type for node in plan.cluster.nodes}):
        if gpus.resolve(kind).vendor != "nvidia":
            raise ConfigError(f"{kind} is not an NVIDIA GPU; cluster files are written for vLLM's CUDA build only")


def check_target(plan: Plan, target: Target) -> None:
    """Raises `ConfigError` for what does not go together."""
    check_name(target.name)
    check_gpus(plan, target.gpus)
    if target.provider == "local":
        _check_hosts(plan, target)
    elif target.hosts or target.rehearsal:
        raise ConfigError(f"--host names machines that there are already; {target.provider} rents its own")


def _check_hosts(plan: Plan, target: Target) -> None:
    if target.spot:
        raise ConfigError("--spot needs a cloud, aws or gcp: hosts reached over SSH are not rented")
    if not target.hosts:
        return
    wrong = [host for host in target.hosts if not _HOST.fullmatch(host)]
    if wrong:
        raise ConfigError(f"--host {wrong[0]!r} is no address or host name")
    if len(set(target.hosts)) != len(target.hosts):
        raise ConfigError("--host names the same host twice")
    if len(target.hosts) != len(plan.cluster.nodes):
        raise ConfigError(
            f"{len(target.hosts)} hosts are named, but {plan.cluster.name} has {len(plan.cluster.nodes)} nodes: "
            "give --host once for each, the head first"
        )
