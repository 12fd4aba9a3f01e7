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


@dataclass(frozen=True)
class Link:
    """A kind of connection between two GPUs."""

    name: str
    bytes_per_s: int


NETWORK = Link("network", NETWORK_BYTES_PER_S)


def link_of(kind: NodeKind, gpu: GpuSpec) -> Link:
    """Within a node: half of NVLink's both-ways figure, or PCIe's one-way figure."""
    if kind.interconnect == "nvlink" and gpu.nvlink_bytes_per_s:
        return Link("NVLink", gpu.nvlink_bytes_per_s // 2)
    return Link("PCIe", gpu.pcie_bytes_per_s)
