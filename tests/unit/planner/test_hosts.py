"""A plan warns of hosts whose disk or memory is short, where that is known, and says what each needs."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.cluster.snapshot import ClusterSnapshot, HostFacts
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Plan, verify
from orchestrator.units import GIB, TIB
from tests.unit.planner.helpers import codes, planned


def hosts(*facts: HostFacts | None) -> ClusterSnapshot:
    """2 × 8 H100 with these facts."""
    cluster = parse_gpus("16xH100")
    nodes = tuple(replace(node, host=host) for node, host in zip(cluster.nodes, facts, strict=True))
    return replace(cluster, nodes=nodes)


def message(plan: Plan, code: str) -> str:
    return next(warning.message for warning in plan.warnings if warning.code == code)


def test_nothing_is_warned_of_where_nothing_is_known_or_all_is_well() -> None:
    ample = HostFacts(2 * TIB, 8 * TIB)
    for cluster in (hosts(None, None), hosts(ample, ample), hosts(HostFacts(), None)):
        assert not codes(planned("kimi-k2", cluster)) & {"disk_short", "host_memory_short"}


def test_a_disk_smaller_than_the_checkpoint_is_named_with_its_node() -> None:
    plan = planned("kimi-k2", hosts(HostFacts(2 * TIB, 8 * TIB), HostFacts(2 * TIB, 500 * GIB)))
    text = message(plan, "disk_short")
    assert text.startswith("node-1: 500 GiB of disk there, and the whole checkpoint takes 958 GiB on every node")
    assert "HF_HOME" in text
    verify(plan)


def test_a_measured_disk_may_hold_the_weights_already() -> None:
    """What is free on a live node says nothing of what was pulled there before, nor of the disk of HF_HOME."""
    live = HostFacts(2 * TIB, 100 * GIB, measured=True)
    text = message(planned("kimi-k2", hosts(live, live)), "disk_short")
    assert text.startswith("node-0 and 1 more: 100 GiB of disk free")
    assert "orchestrator pull kimi-k2 --nodes --check-only" in text


def test_a_host_with_less_memory_than_its_ranks_need_is_named() -> None:
    plan = planned("kimi-k2", hosts(HostFacts(4 * GIB, None), None))
    assert "node-0: 4.0 GiB of host memory" in message(plan, "host_memory_short")


def test_layers_moved_to_the_host_count() -> None:
    plain = hosts(HostFacts(32 * GIB, None), HostFacts(32 * GIB, None))
    assert "host_memory_short" not in codes(planned("kimi-k2", plain))
    assert "host_memory_short" in codes(planned("kimi-k2", plain, cpu_offload_gb=8))


def test_the_plan_says_what_a_host_needs_and_stays_the_same_document() -> None:
    plan = planned("kimi-k2", "16xH100")
    assert "958 GiB of disk for the whole checkpoint" in plan.sources["hosts"]
    assert Plan.from_json(plan.to_json()) == plan
