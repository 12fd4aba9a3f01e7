"""Ranks to GPUs: groups stay inside islands and nodes, replicas inside nodes, failures apart."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.snapshot import NodeSnapshot
from orchestrator.planner.placement import Replica, place, place_straddling
from orchestrator.units import GIB


def node(name: str, gpus: int, **changes: object) -> NodeSnapshot:
    return NodeSnapshot(name, "H100", gpus, 79 * GIB, "nvlink", **changes)  # type: ignore[arg-type]


def nodes_of(replica: Replica) -> list[list[str]]:
    return [sorted({seat.node.name for seat in group}) for group in replica]


def placed(
    nodes: list[NodeSnapshot], size: int, groups: int, replicas: int = 1, whole: bool = True
) -> tuple[Replica, ...]:
    result = place(tuple(nodes), size, groups, replicas, whole)
    assert result is not None
    return result


def test_a_group_stays_inside_an_island() -> None:
    split = node("a", 8, nvlink_islands=((0, 2, 4, 6), (1, 3, 5, 7)))
    (replica,) = placed([split], 4, 2)
    assert [tuple(seat.gpu_index for seat in group) for group in replica] == [(0, 2, 4, 6), (1, 3, 5, 7)]


def test_a_group_leaves_its_island_only_when_allowed() -> None:
    split = node("a", 6, nvlink_islands=((0, 1, 2), (3, 4, 5)))
    assert place((split,), 2, 3, 1, whole_islands_only=True) is None
    (replica,) = placed([split], 2, 3, whole=False)
    assert [tuple(seat.gpu_index for seat in group) for group in replica] == [(0, 1), (3, 4), (2, 5)]


def test_gpus_in_use_are_left_alone() -> None:
    (replica,) = placed([node("a", 4, gpus_in_use=frozenset({0, 2}))], 2, 1)
    assert [seat.gpu_index for seat in replica[0]] == [1, 3]


def test_a_replica_takes_the_fullest_node_that_holds_it() -> None:
    (replica,) = placed([node("big", 8), node("small", 4)], 4, 1)
    assert nodes_of(replica) == [["small"]]


def test_a_replica_that_no_node_holds_spans_as_few_as_it_can() -> None:
    (replica,) = placed([node("a", 2), node("b", 4), node("c", 4)], 2, 4)
    assert nodes_of(replica) == [["b"], ["b"], ["c"], ["c"]]


def test_uneven_nodes_each_hold_whole_groups() -> None:
    (replica,) = placed([node("a", 6), node("b", 6), node("c", 4)], 2, 8)
    assert Counter(name for (name,) in nodes_of(replica)) == {"a": 3, "b": 3, "c": 2}


def test_replicas_are_dealt_out_over_failure_domains() -> None:
    racks = [node(f"{rack}{i}", 8, failure_domain=rack) for rack in "ab" for i in range(2)]
    replicas = placed(racks, 8, 1, replicas=3)
    assert [nodes_of(replica)[0] for replica in replicas] == [["a0"], ["b0"], ["a1"]]


def test_a_replica_over_nodes_stays_in_one_failure_domain_if_one_suffices() -> None:
    racks = [
        node("a0", 8, failure_domain="a"),
        node("b0", 8, failure_domain="b"),
        node("a1", 8, failure_domain="a"),
    ]
    (replica,) = placed(racks, 8, 2)
    assert nodes_of(replica) == [["a0"], ["a1"]]


def test_too_few_gpus_give_no_placement() -> None:
    assert place((node("a", 7),), 4, 2, 1, whole_islands_only=True) is None


def test_a_group_larger_than_any_node_takes_equal_parts_of_as_few_as_possible() -> None:
    result = place_straddling((node("a", 8), node("b", 8), node("c", 8)), 16, 1, 1)
    assert result is not None
    counted = Counter(seat.node.name for seat in result[0][0])
    assert counted == {"a": 8, "b": 8}


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=8),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_no_gpu_is_given_out_twice_and_groups_never_straddle(
    sizes: list[int], size: int, groups: int, replicas: int
) -> None:
    """And whenever there are enough groups, they are found."""
    nodes = tuple(node(f"n{i}", gpus, failure_domain=f"r{i % 2}") for i, gpus in enumerate(sizes))
    result = place(nodes, size, groups, replicas, whole_islands_only=True)
    enough = sum(gpus // size for gpus in sizes) >= groups * replicas
    assert (result is not None) == enough
    for replica in result or ():
        assert [len(group) for group in replica] == [size] * groups
        assert all(len(names) == 1 for names in nodes_of(replica))
    seats = [(s.node.name, s.gpu_index) for replica in result or () for group in replica for s in group]
    assert len(set(seats)) == len(seats)
