"""How fast neighbouring GPUs reach one another: the figures that layouts are compared by.

All are one-way bytes a second for one GPU. They rank layouts; they are no promise of speed.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.cluster.snapshot import NodeKind

# One 400 Gbit/s adapter for each GPU, as in today's eight-GPU machines (NVIDIA DGX H100 datasheet). A
# plan says so wherever a tensor group crosses it.
NETWORK_BYTES_PER_S = 50 * 10**9
# NVLink bridges between pairs of PCIe cards, both ways (NVIDIA datasheets of A100 PCIe and H100 PCIe).
BRIDGE_BYTES_PER_S = 600 * 10**9


@dataclass(frozen=True)
class Link:
    """A kind of connection between two GPUs."""

    name: str
    bytes_per_s: int


NETWORK = Link("network", NETWORK_BYTES_PER_S)


def link_of(kind: NodeKind, gpu: GpuSpec) -> Link:
    """Within an island of a node: half of NVLink's both-ways figure, or PCIe's one-way figure."""
    if kind.interconnect == "pcie":
        return pcie_of(gpu)
    return Link("NVLink", (gpu.nvlink_bytes_per_s or BRIDGE_BYTES_PER_S) // 2)


def pcie_of(gpu: GpuSpec) -> Link:
    return Link("PCIe", gpu.pcie_bytes_per_s)
