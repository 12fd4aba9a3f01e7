"""Pools: GPUs that one replica may be built from.

A pool is all free GPUs of one kind of node, or of several kinds where no single kind suffices. Counting
what a pool holds does not depend on how many nodes it has, only on how many different shapes of node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.cluster.snapshot import ClusterSnapshot, NodeKind, NodeSnapshot
from orchestrator.planner.links import Link, link_of, pcie_of

# Up to here every mixture of kinds is tried; beyond, only "this kind and all faster ones".
MAX_KINDS_TO_MIX_FREELY = 5


@dataclass(frozen=True)
class Pool:
    """Nodes in the order in which they are filled, and the kinds among them.

    `gpus`: one specification for each kind, with the memory that its nodes really have.
    """

    nodes: tuple[NodeSnapshot, ...]
    kinds: tuple[NodeKind, ...]
    gpus: tuple[GpuSpec, ...]

    @property
    def is_mixed(self) -> bool:
        return len(self.kinds) > 1

    def gpu_of(self, kind: NodeKind) -> GpuSpec:
        return self.gpus[self.kinds.index(kind)]

    @cached_property
    def weakest_gpu(self) -> GpuSpec:
        return min(self.gpus, key=lambda gpu: (gpu.memory_bytes, gpu.hbm_bandwidth_bytes_per_s, gpu.name))

    @cached_property
    def link(self) -> Link:
        """The slowest link between neighbours of one island."""
        links = [link_of(kind, gpu) for kind, gpu in zip(self.kinds, self.gpus, strict=True)]
        return min(links, key=lambda link: (link.bytes_per_s, link.name))

    @cached_property
    def pcie(self) -> Link:
        """The slowest link between GPUs of one node that share no island."""
        return min((pcie_of(gpu) for gpu in self.gpus), key=lambda link: link.bytes_per_s)

    @cached_property
    def num_gpus(self) -> int:
        return sum(len(node.free_gpus) for node in self.nodes)

    @cached_property
    def largest_node(self) -> int:
        return max(len(node.free_gpus) for node in self.nodes)

    @cached_property
    def _shapes(self) -> Counter[tuple[int, ...]]:
        return Counter(tuple(len(island) for island in node.free_islands) for node in self.nodes)

    def whole_groups(self, size: int) -> int:
        """Tensor groups of `size` that lie inside one island each, over all nodes."""
        return sum(times * sum(n // size for n in shape) for shape, times in self._shapes.items())

    def node_groups(self, size: int) -> int:
        """Tensor groups of `size` that lie inside one node each, islands or not."""
        return sum(times * _groups_in_node(shape, size) for shape, times in self._shapes.items())

    def describe(self) -> str:
        return " and ".join(f"{kind.gpu_type} ({kind.interconnect})" for kind in self.kinds)


def _groups_in_node(shape: tuple[int, ...], size: int) -> int:
    whole = sum(n // size for n in shape)
    left_over = sum(n % size for n in shape)
    return whole + left_over // size


def pools_of(cluster: ClusterSnapshot) -> tuple[Pool, ...]:
    """One pool for each kind of node that has free GPUs."""
    return tuple(_pool(cluster, (kind,)) for kind in _usable_kinds(cluster))


def mixed_pools_of(cluster: ClusterSnapshot) -> Iterator[Pool]:
    """Pools of several kinds, the fastest kinds first. GPUs of two vendors are never mixed."""
    kinds = sorted(_usable_kinds(cluster), key=lambda kind: _speed(cluster, kind), reverse=True)
    for chosen in _mixtures(kinds):
        if len({cluster.gpu_of(kind).vendor for kind in chosen}) == 1:
            yield _pool(cluster, chosen)


def _mixtures(kinds: list[NodeKind]) -> Iterator[tuple[NodeKind, ...]]:
    sizes = range(2, len(kinds) + 1)
    if len(kinds) <= MAX_KINDS_TO_MIX_FREELY:
        for size in sizes:
            yield from combinations(kinds, size)
    else:
        yield from (tuple(kinds[:size]) for size in sizes)


def _usable_kinds(cluster: ClusterSnapshot) -> list[NodeKind]:
    return [kind for kind in cluster.kinds if any(node.free_gpus for node in cluster.of_kind(kind))]


def _pool(cluster: ClusterSnapshot, kinds: tuple[NodeKind, ...]) -> Pool:
    """The nodes with most memory first: where kinds are mixed, stages are filled in this order."""
    nodes = [node for kind in kinds for node in cluster.of_kind(kind) if node.free_gpus]
    in_order = tuple(sorted(nodes, key=lambda node: -node.gpu_memory_bytes))
    return Pool(in_order, kinds, tuple(cluster.gpu_of(kind) for kind in kinds))


def _speed(cluster: ClusterSnapshot, kind: NodeKind) -> tuple[int, int, NodeKind]:
    return cluster.gpu_of(kind).hbm_bandwidth_bytes_per_s, kind.gpu_memory_bytes, kind
