"""The shapes of the files that describe a cluster, checked where they come in.

Two kinds are read: a plain list of nodes, and a Ray cluster YAML. Ray's own schema forbids extra keys at
the top of its files but allows them inside `provider`, so the hardware facts of a Ray file live under
`provider.orchestrator`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from orchestrator.validation import Bytes

# YAML reads `yes` as a truth value and 1.0 as a number: neither is a count.
Count = Annotated[PositiveInt, Field(strict=True, le=100_000)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
GpuIndex = Annotated[int, Field(strict=True, ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Strict):
    """What one kind of machine is; everything but the GPU and its number has a default."""

    gpu_type: Name
    num_gpus: Count
    gpu_memory: Bytes | None = None
    interconnect: Literal["nvlink", "pcie"] | None = None
    nvlink_islands: tuple[tuple[GpuIndex, ...], ...] = ()
    gpus_in_use: tuple[GpuIndex, ...] = ()
    failure_domain: str = ""
    host_memory: Bytes | None = None
    host_disk: Bytes | None = None

    @model_validator(mode="after")
    def _indices_exist(self) -> Hardware:
        listed = [index for island in self.nvlink_islands for index in island]
        if len(set(listed)) != len(listed):
            raise ValueError("nvlink_islands names a GPU twice")
        for field, indices in (("nvlink_islands", listed), ("gpus_in_use", self.gpus_in_use)):
            beyond = [index for index in indices if index >= self.num_gpus]
            if beyond:
                raise ValueError(f"{field} names GPU {beyond[0]}, but num_gpus is {self.num_gpus}")
        if self.nvlink_islands and len(listed) != self.num_gpus:
            raise ValueError(f"nvlink_islands lists {len(listed)} GPUs, but num_gpus is {self.num_gpus}")
        return self


class PlainNode(Hardware):
    """One entry of `nodes`; `count` of them, named `name-0`, `name-1`, … where there are several."""

    name: Name
    count: Count = 1


class PlainCluster(_Strict):
    """A list of nodes and nothing else."""

    name: Name = "cluster"
    nodes: Annotated[tuple[PlainNode, ...], Field(min_length=1)]


class HardwareOverride(_Strict):
    """What differs on one host from the `provider.orchestrator` defaults."""

    gpu_type: Name | None = None
    num_gpus: Annotated[int, Field(strict=True, ge=0, le=1024)] | None = None
    gpu_memory: Bytes | None = None
    interconnect: Literal["nvlink", "pcie"] | None = None
    nvlink_islands: tuple[tuple[GpuIndex, ...], ...] | None = None
    gpus_in_use: tuple[GpuIndex, ...] | None = None
    failure_domain: str | None = None
    host_memory: Bytes | None = None
    host_disk: Bytes | None = None


class RayHardware(HardwareOverride):
    """`provider.orchestrator`: defaults for all machines, and overrides by host or by node type."""

    nodes: dict[str, HardwareOverride] = {}
    node_types: dict[str, HardwareOverride] = {}


class RayProvider(BaseModel):
    """Ray's `provider`, of which only these keys concern the hardware."""

    model_config = ConfigDict(extra="ignore")

    type: Name
    head_ip: Name | None = None
    worker_ips: tuple[Name, ...] = ()
    orchestrator: RayHardware = RayHardware()


class RayNodeType(BaseModel):
    """One of Ray's `available_node_types`."""

    model_config = ConfigDict(extra="ignore")

    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    max_workers: Annotated[int, Field(ge=0)] | None = None


class RayCluster(BaseModel):
    """A Ray cluster YAML, read for its hardware only; Ray checks the rest itself."""

    model_config = ConfigDict(extra="ignore")

    cluster_name: Name
    provider: RayProvider
    max_workers: Annotated[int, Field(ge=0)] | None = None
    head_node_type: str | None = None
    available_node_types: dict[str, RayNodeType] = {}


def kind_of(document: dict[str, Any]) -> type[PlainCluster] | type[RayCluster]:
    """Ray's files have `provider`, plain ones have `nodes`."""
    return RayCluster if "provider" in document else PlainCluster
