"""What must hold for every model and every cluster.

Random models are Mixtral-like (grouped attention) or DeepSeek-like (latent attention), random clusters
mix kinds, sizes, failure domains and GPUs in use.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.catalog.models import ModelSpec
from orchestrator.cluster.snapshot import ClusterSnapshot, NodeSnapshot
from orchestrator.errors import NoFeasiblePlan
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.plan import Objective, Plan, verify
from orchestrator.planner import PlanRequest, enumeration, make_plan
from orchestrator.planner.score import full_key, score_key
from orchestrator.planner.search import search

KINDS = ("H100", "H200", "L40S", "A100-80G-PCIe")
OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency", "cost")
thorough = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    latent = draw(st.booleans())
    experts = draw(st.sampled_from([4, 6, 8, 16, 60, 128]))
    heads = draw(st.sampled_from([4, 6, 8, 12, 16, 28, 40]))
    config: dict[str, Any] = {
        "hidden_size": 128 * draw(st.integers(4, 64)),
        "num_hidden_layers": draw(st.integers(2, 48)),
        "num_attention_heads": heads,
        "num_experts_per_tok": draw(st.integers(1, 4)),
        "vocab_size": 64 * draw(st.integers(100, 2000)),
        "max_position_embeddings": 65_536,
        "torch_dtype": "bfloat16",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    }
    width = 128 * draw(st.integers(4, 128))
    config |= _latent(draw, experts, width) if latent else _grouped(draw, heads, experts, width)
    return ModelSpec.from_hf(config, name="random", source="a random config")


def _grouped(draw: st.DrawFn, heads: int, experts: int, width: int) -> dict[str, Any]:
    kv_heads = draw(st.sampled_from([n for n in (1, 2, 4, 8) if heads % n == 0]))
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "num_local_experts": experts,
        "intermediate_size": width,
        "sliding_window": None,
    }


def _latent(draw: st.DrawFn, experts: int, width: int) -> dict[str, Any]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "moe_intermediate_size": width,
        "intermediate_size": 4 * width,
        "first_k_dense_replace": draw(st.integers(0, 1)),
        "moe_layer_freq": 1,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "num_key_value_heads": 4,
        "num_nextn_predict_layers": 0,
    }


@st.composite
def nodes(draw: st.DrawFn, name: str) -> NodeSnapshot:
    gpu = resolve_gpu(draw(st.sampled_from(KINDS)))
    num_gpus = draw(st.integers(1, 8))
    halves = num_gpus % 2 == 0 and draw(st.booleans())
    half = num_gpus // 2
    return NodeSnapshot(
        name=name,
        gpu_type=gpu.name,
        num_gpus=num_gpus,
        gpu_memory_bytes=gpu.memory_bytes,
        interconnect="nvlink" if gpu.has_nvlink else "pcie",
        nvlink_islands=(tuple(range(half)), tuple(range(half, num_gpus))) if halves else (),
        gpus_in_use=frozenset(draw(st.sets(st.integers(0, num_gpus - 1), max_size=2))),
        failure_domain=draw(st.sampled_from(["rack-1", "rack-2"])),
    )


@st.composite
def clusters(draw: st.DrawFn, most: int = 4) -> ClusterSnapshot:
    count = draw(st.integers(1, most))
    return ClusterSnapshot("random", tuple(draw(nodes(f"node-{i}")) for i in range(count)))


@st.composite
def requests(draw: st.DrawFn) -> PlanRequest:
    spec = draw(models())
    length = draw(st.sampled_from([1024, 8192, 65_536]))
    return PlanRequest(
        spec=spec,
        checkpoint="random",
        cluster=draw(clusters()),
        engine=EngineArgs(
            gpu_memory_utilization=0.9,
            max_model_len=length,
            quantization=draw(st.sampled_from([None, "fp8"])),
        ),
        objective=draw(st.sampled_from(OBJECTIVES)),
    )


def plan_or_none(request: PlanRequest) -> Plan | None:
    try:
        return make_plan(request)
    except NoFeasiblePlan:
        return None


@thorough
@given(requests())
def test_the_books_of_every_plan_balance(request: PlanRequest) -> None:
    """No GPU twice, none in use, used and free add up, every shard once; and all that was asked is met."""
    plan = plan_or_none(request)
    assume(plan is not None)
    assert plan is not None
    verify(plan)
    in_use = {(node.name, gpu) for node in request.cluster.nodes for gpu in node.gpus_in_use}
    assert not in_use & {(rank.node, rank.gpu_index) for rank in plan.ranks}
    assert plan.kv_cache.max_model_len == request.engine.max_model_len
    assert plan.kv_cache.max_concurrent_sequences >= 1
    assert plan.ranks[-1].layers[1] == request.spec.num_layers


@thorough
@given(requests(), st.integers(1, 40))
def test_more_memory_never_turns_fit_into_unfit(request: PlanRequest, more_gib: int) -> None:
    assume(search(request).winner is not None)
    larger = tuple(
        replace(node, gpu_memory_bytes=node.gpu_memory_bytes + more_gib * 2**30) for node in request.cluster.nodes
    )
    assert search(replace(request, cluster=replace(request.cluster, nodes=larger))).winner is not None


@thorough
@given(requests(), nodes("another"))
def test_a_superset_of_nodes_never_makes_things_worse(request: PlanRequest, another: NodeSnapshot) -> None:
    """By the very criteria by which plans are ranked."""
    before = search(request).winner
    assume(before is not None)
    assert before is not None
    grown = replace(request.cluster, nodes=(*request.cluster.nodes, another))
    after = search(replace(request, cluster=grown)).winner
    assert after is not None
    assert score_key(after) <= score_key(before)


@thorough
@given(requests())
def test_the_same_input_gives_the_same_plan(request: PlanRequest) -> None:
    first, second = plan_or_none(request), plan_or_none(request)
    assert first == second


@thorough
@given(requests())
def test_a_plan_survives_its_json(request: PlanRequest) -> None:
    plan = plan_or_none(request)
    assume(plan is not None)
    assert plan is not None
    assert Plan.from_json(plan.to_json()) == plan


@thorough
@given(requests())
def test_what_is_not_worked_out_would_not_have_won(request: PlanRequest) -> None:
    """Cutting pipelines short, as early as can be, gives the winner of the whole search."""
    with mock.patch.object(enumeration, "STAGES_ALWAYS_SEEN", 0):
        cut = search(request).winner
    with mock.patch.object(enumeration, "STAGES_ALWAYS_SEEN", 1000):
        whole = search(request).winner
    assert (cut is None) == (whole is None)
    if cut is not None and whole is not None:
        assert full_key(cut) == full_key(whole)
