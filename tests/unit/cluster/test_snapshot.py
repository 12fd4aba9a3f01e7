"""What follows from a node's facts."""

from __future__ import annotations

from orchestrator.cluster.snapshot import NodeSnapshot
from orchestrator.cluster.spec import parse_gpus
from orchestrator.units import GIB


def node(**changes: object) -> NodeSnapshot:
    facts: dict[str, object] = {
        "name": "a",
        "gpu_type": "H100",
        "num_gpus": 8,
        "gpu_memory_bytes": 79 * GIB,
        "interconnect": "nvlink",
    }
    return NodeSnapshot(**{**facts, **changes})  # type: ignore[arg-type]


def test_a_node_without_declared_islands_is_one_island() -> None:
    assert node().free_islands == (tuple(range(8)),)


def test_gpus_in_use_shrink_their_island() -> None:
    taken = node(nvlink_islands=((0, 1, 2, 3), (4, 5, 6, 7)), gpus_in_use=frozenset({0, 4, 5, 6, 7}))
    assert taken.free_islands == ((1, 2, 3),)
    assert taken.free_gpus == (1, 2, 3)


def test_a_cluster_describes_itself_by_kind() -> None:
    assert parse_gpus("16xH100").describe() == "2 nodes, 16 × H100 (nvlink)"
    assert parse_gpus("4xL40S").describe() == "1 node, 4 × L40S (pcie)"
