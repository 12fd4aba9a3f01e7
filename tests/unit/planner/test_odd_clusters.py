"""Clusters that are not eight equal GPUs a node: what is chosen, and what it is said to cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.cluster.spec import parse_gpus
from orchestrator.errors import NoFeasiblePlan
from orchestrator.plan import Constraints, Plan
from orchestrator.planner.search import search
from orchestrator.units import GIB
from tests.unit.planner.helpers import ask, codes, planned


def with_memory(gpus: str, gib: float) -> ClusterSnapshot:
    cluster = parse_gpus(gpus)
    return replace(
        cluster,
        nodes=tuple(replace(node, gpu_memory_bytes=int(gib * GIB)) for node in cluster.nodes),
    )


def groups_by_node(plan: Plan) -> set[int]:
    """How many nodes each tensor group touches."""
    nodes: dict[tuple[int, int, int], set[str]] = {}
    for rank in plan.ranks:
        nodes.setdefault((rank.replica, rank.data_rank, rank.pipeline_stage), set()).add(rank.node)
    return {len(names) for names in nodes.values()}


def test_uneven_nodes_hold_whole_tensor_groups() -> None:
    plan = planned("kimi-k2", "6+6+4xH100", max_model_len=8192)
    assert plan.parallelism.label() == "TP 2 × PP 8"
    assert groups_by_node(plan) == {1}
    assert Counter(rank.node for rank in plan.ranks) == {"node-0": 6, "node-1": 6, "node-2": 4}


def test_a_tensor_group_straddles_nodes_only_if_nothing_else_fits_and_says_what_it_costs() -> None:
    """Sixteen single-GPU nodes hold Kimi K2 in stages; tensor parallel 16 must be insisted on."""
    singles = "+".join(["1"] * 16) + "xH100"
    assert groups_by_node(planned("kimi-k2", singles, max_model_len=8192)) == {1}
    insisted = planned("kimi-k2", "16xH100", max_model_len=8192, tensor_parallel_size=16)
    assert groups_by_node(insisted) == {2}
    warning = next(w for w in insisted.warnings if w.code == "tensor_group_straddles_nodes")
    assert "122 all-reduces a token cross the network" in warning.message


def test_where_more_stages_than_layers_would_be_needed_only_straddling_is_left() -> None:
    """Single-GPU nodes too small for one layer of Mixtral 8x7B: no number of stages is enough."""
    plan = planned(
        "mixtral-8x7b",
        with_memory("+".join(["1"] * 64) + "xL4", gib=2.2),
        quantization="fp8",
        max_model_len=1024,
        max_num_batched_tokens=256,
        max_num_seqs=8,
    )
    assert plan.parallelism.tensor > 1
    assert groups_by_node(plan) == {plan.parallelism.tensor}
    assert "tensor_group_straddles_nodes" in codes(plan)


def test_one_kind_of_gpu_is_preferred_to_a_mixture() -> None:
    plan = planned("mixtral-8x22b", "4xH100,8xA100-80G", quantization="fp8")
    assert len({rank.node for rank in plan.ranks}) == 1
    assert "mixed_gpus" not in codes(plan)


def test_kinds_are_mixed_only_if_no_kind_suffices_and_stages_follow_their_memory() -> None:
    plan = planned("deepseek-v3", "4xH200,8xH100", max_model_len=8192)
    assert "mixed_gpus" in codes(plan)
    first, *others = plan.engine.env["VLLM_PP_LAYER_PARTITION"].split(",")
    assert all(int(first) > int(other) for other in others)
    capacities = {rank.pipeline_stage: rank.memory.capacity_bytes for rank in plan.ranks}
    assert capacities[0] > capacities[1]


def test_gpus_in_use_are_not_planned_with() -> None:
    cluster = parse_gpus("8xH200")
    taken = replace(cluster, nodes=(replace(cluster.nodes[0], gpus_in_use=frozenset(range(4))),))
    plan = planned("mixtral-8x22b", taken, quantization="fp8")
    assert {rank.gpu_index for rank in plan.ranks} == {4, 5, 6, 7}
    with pytest.raises(NoFeasiblePlan):
        planned("deepseek-v3.2", taken)


def test_tensor_groups_stay_inside_nvlink_islands() -> None:
    """Two bridged pairs: TP 4 would all-reduce over PCIe, so two stages of two are chosen."""
    cluster = parse_gpus("4xH100-PCIe")
    bridged = replace(
        cluster,
        nodes=(replace(cluster.nodes[0], interconnect="nvlink", nvlink_islands=((0, 1), (2, 3))),),
    )
    plan = planned("mixtral-8x22b", bridged, quantization="fp8")
    assert plan.parallelism.label() == "TP 2 × PP 2"
    insisted = planned("mixtral-8x22b", bridged, quantization="fp8", tensor_parallel_size=4)
    assert "tensor_group_leaves_island" in codes(insisted)


def test_replicas_are_spread_over_failure_domains() -> None:
    cluster = parse_gpus("32xH100")
    racks = tuple(replace(node, failure_domain=f"rack-{index // 2}") for index, node in enumerate(cluster.nodes))
    spread = ClusterSnapshot("racks", racks)
    plan = planned(
        "mixtral-8x22b",
        spread,
        quantization="fp8",
        tensor_parallel_size=8,
        constraints=Constraints(replicas=2),
    )
    assert {rank.node for rank in plan.ranks} == {"node-0", "node-2"}


def test_replicas_that_do_not_fit_are_refused_with_the_count() -> None:
    with pytest.raises(NoFeasiblePlan, match="needs 24 GPUs, and 16"):
        planned("mixtral-8x7b", "16xH100", tensor_parallel_size=8, constraints=Constraints(replicas=3))


def smallest_that_fits(model: str, gpus: str, gibs: list[float], **arguments: Any) -> Plan:
    for gib in gibs:
        if search(ask(model, with_memory(gpus, gib), **arguments)).winner is not None:
            return planned(model, with_memory(gpus, gib), **arguments)
    raise AssertionError(f"{model} fits none of {gibs}")


def test_stages_are_uneven_where_the_last_is_tight() -> None:
    """Llama 3 70B in four stages: embedding and head weigh like a layer, so the ends get fewer."""
    degrees = {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 4,
        "max_model_len": 2048,
        "max_num_seqs": 16,
    }
    plan = smallest_that_fits("llama-3.1-70b", "4xL40S", [36 + n / 10 for n in range(60)], **degrees)
    sizes = [int(size) for size in plan.engine.env["VLLM_PP_LAYER_PARTITION"].split(",")]
    assert sum(sizes) == 80
    assert sizes[-1] < max(sizes)
    assert "uneven_stages" in codes(plan)


def test_stages_are_the_engines_own_where_there_is_room() -> None:
    plan = planned("llama-3.1-70b", "8xL40S", tensor_parallel_size=1, pipeline_parallel_size=8)
    assert "VLLM_PP_LAYER_PARTITION" not in plan.engine.env


def test_decode_context_parallel_divides_the_cache_of_latent_attention() -> None:
    whole = planned("deepseek-v3", "8xH200", tensor_parallel_size=8, max_model_len=8192)
    shared = planned(
        "deepseek-v3", "8xH200", tensor_parallel_size=8, max_model_len=8192, decode_context_parallel_size=8
    )
    assert shared.kv_cache.capacity_tokens > 7 * whole.kv_cache.capacity_tokens
    assert shared.engine.args["decode_context_parallel_size"] == 8


def test_which_experts_each_rank_holds_is_part_of_the_plan() -> None:
    plan = planned("deepseek-v3.2", "8xH200")
    assert plan.ranks[0].experts == tuple(range(32))
    assert plan.ranks[1].experts == tuple(range(32, 64))


def test_a_stage_without_experts_has_none() -> None:
    """With 61 stages the first holds DeepSeek's first dense layer alone."""
    plan = planned(
        "deepseek-v3", "64xL40S", max_model_len=1024, tensor_parallel_size=1, pipeline_parallel_size=61,
        enable_expert_parallel=True,
    )  # fmt: skip
    assert plan.ranks[0].experts is None
    assert plan.ranks[-1].experts == tuple(range(256))


def test_of_two_kinds_that_both_serve_the_faster_is_chosen() -> None:
    """Whatever batch sizes the engine takes by default on each of them."""
    plan = planned("mixtral-8x7b", "8xA100-80G,8xH100")
    assert {rank.node for rank in plan.ranks} == {"node-1"}
    assert any("on A100-80G (nvlink)" in entry.reason for entry in plan.rejected)
