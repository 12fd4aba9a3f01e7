"""The cluster as it is at one moment: frozen facts, and what follows from them.

GPUs of a node are numbered from 0. An NVLink island is a set of them that reach one another over
NVLink; every other pair talks over PCIe.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from orchestrator.catalog.gpus import GpuSpec, GpuTable, shipped_gpus

Interconnect = Literal["nvlink", "pcie"]


@dataclass(frozen=True)
class HostFacts:
    """What a machine has beside its GPUs, as far as it is known: `measured` tells what is free now from what is there.

    A live node is measured by its agent, which sees the disks of Ray's own files: of `disk_bytes` it is the largest.
    """

    memory_bytes: int | None = None
    disk_bytes: int | None = None
    measured: bool = False


@dataclass(frozen=True)
class NodeSnapshot:
    """One machine. `gpu_memory_bytes` is what torch reports as the total of each of its GPUs."""

    name: str
    gpu_type: str
    num_gpus: int
    gpu_memory_bytes: int
    interconnect: Interconnect
    nvlink_islands: tuple[tuple[int, ...], ...] = ()
    gpus_in_use: frozenset[int] = frozenset()
    failure_domain: str = ""
    host: HostFacts | None = None

    @property
    def kind(self) -> NodeKind:
        return NodeKind(self.gpu_type, self.gpu_memory_bytes, self.interconnect)

    @cached_property
    def free_gpus(self) -> tuple[int, ...]:
        return tuple(index for index in range(self.num_gpus) if index not in self.gpus_in_use)

    @cached_property
    def free_islands(self) -> tuple[tuple[int, ...], ...]:
        """Free GPUs by fast neighbourhood: NVLink islands where declared, else the whole node."""
        declared = self.nvlink_islands or (tuple(range(self.num_gpus)),)
        free = (tuple(index for index in island if index not in self.gpus_in_use) for island in declared)
        return tuple(island for island in free if island)

    def groups_of(self, size: int) -> int:
        """How many groups of `size` free GPUs the node holds, inside its islands or across them."""
        return len(self.free_gpus) // size

    def whole_groups_of(self, size: int) -> int:
        """How many groups of `size` free GPUs lie inside one island each."""
        return sum(len(island) // size for island in self.free_islands)


@dataclass(frozen=True, order=True)
class NodeKind:
    """What makes two nodes interchangeable to a plan."""

    gpu_type: str
    gpu_memory_bytes: int
    interconnect: Interconnect


@dataclass(frozen=True)
class ClusterSnapshot:
    """All nodes, in the order they were declared. `source` says where the facts came from."""

    name: str
    nodes: tuple[NodeSnapshot, ...]
    source: str = "user"
    # What names that span variants of a GPU were taken to mean.
    assumptions: tuple[str, ...] = ()
    # What is known of the GPUs that the nodes name.
    gpus: GpuTable = field(default_factory=shipped_gpus, compare=False, repr=False)

    def gpu_of(self, kind: NodeKind) -> GpuSpec:
        """The catalogue's facts with the memory that this kind of node has."""
        return self._specs[kind]

    @cached_property
    def _specs(self) -> dict[NodeKind, GpuSpec]:
        return {
            kind: replace(self.gpus.resolve(kind.gpu_type), memory_bytes=kind.gpu_memory_bytes) for kind in self.kinds
        }

    @cached_property
    def num_gpus(self) -> int:
        return sum(node.num_gpus for node in self.nodes)

    @cached_property
    def num_free_gpus(self) -> int:
        return sum(len(node.free_gpus) for node in self.nodes)

    @cached_property
    def kinds(self) -> tuple[NodeKind, ...]:
        return tuple(sorted({node.kind for node in self.nodes}))

    def of_kind(self, kind: NodeKind) -> tuple[NodeSnapshot, ...]:
        return tuple(node for node in self.nodes if node.kind == kind)

    def describe(self) -> str:
        """`2 nodes, 16 × H100 (nvlink)`, one part for each kind of node."""
        parts = []
        for kind in self.kinds:
            gpus = sum(node.num_gpus for node in self.nodes if node.kind == kind)
            parts.append(f"{gpus} × {kind.gpu_type} ({kind.interconnect})")
        noun = "node" if len(self.nodes) == 1 else "nodes"
        return f"{len(self.nodes)} {noun}, {', '.join(parts)}"
