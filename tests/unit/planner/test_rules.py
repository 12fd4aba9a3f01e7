"""Engine rules meet candidates: an error puts a candidate out with its mend, a warning goes into the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.catalog.engine_rules import EngineRule, built_in_rules
from orchestrator.errors import NoFeasiblePlan
from orchestrator.plan import Objective
from orchestrator.planner.legality import Refusal
from orchestrator.planner.notices import notes_of, warnings_of
from orchestrator.planner.search import search
from tests.unit.planner.helpers import ask, codes, planned


@pytest.mark.parametrize(
    ("model", "gpus", "arguments", "expected"),
    [
        ("kimi-k2", "24xA100-80G", {"kv_cache_dtype": "fp8"}, "needs compute capability 8.9, and A100-80G has 8.0"),
        ("deepseek-v3.2", "16xA100-80G", {}, "sparse attention"),
        ("llama-3-70b", "4xH100", {"data_parallel_size": 2}, "ask for 2 replicas instead"),
        ("llama-3-70b", "4xH100", {"enable_expert_parallel": True}, "is dense"),
    ],
)
def test_a_rule_of_severity_error_refuses_with_the_mend(
    model: str, gpus: str, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(NoFeasiblePlan, match=expected):
        planned(model, gpus, **arguments)


@pytest.mark.parametrize(
    ("model", "gpus", "arguments", "code"),
    [
        ("mixtral-8x7b", "2xA100-80G", {"kv_cache_dtype": "fp8"}, "fp8_kv_cache_on_ampere"),
        ("mixtral-8x7b", "2xA100-80G", {}, "fp8_weights_without_fp8_arithmetic"),
        ("mixtral-8x7b", "2xH100", {"gpu_memory_utilization": 0.95}, "high_memory_utilization"),
        ("mixtral-8x7b", "8xL40S", {}, "tensor_parallel_over_pcie"),
        ("deepseek-v3.2", "8xH200", {}, "deep_gemm_needed"),
        ("kimi-k2", "16xH100", {}, "custom_code_needed"),
        ("mixtral-8x7b", "2xL40S", {"data_parallel_size": 2, "enable_expert_parallel": True}, "all_to_all_over_pcie"),
    ],
)
def test_a_rule_of_severity_warning_goes_into_the_plan(
    model: str, gpus: str, arguments: dict[str, Any], code: str
) -> None:
    assert code in codes(planned(model, gpus, **arguments))


def test_a_rule_holds_for_the_gpu_it_names_and_others_are_chosen() -> None:
    """An FP8 cache with latent attention is refused on Ampere, and planned on the Hoppers beside it."""
    plan = planned("deepseek-v3", "16xA100-80G,8xH200", kv_cache_dtype="fp8")
    assert {rank.node for rank in plan.ranks} == {"node-2"}
    assert "fp8_kv_cache_mla_on_ampere" in {entry.code for entry in plan.rejected}


# Every built-in rule, and what it is met by: model, GPUs, arguments, objective, engine version.
MET_BY: dict[str, tuple[str, str, dict[str, Any], Objective, str]] = {
    "expert_parallel_without_moe": ("llama-3-70b", "4xH100", {"enable_expert_parallel": True}, "throughput", "0.29.0"),
    "sparse_attention_needs_hopper": ("deepseek-v3.2", "16xA100-80G", {}, "throughput", "0.29.0"),
    "fp8_kv_cache_mla_on_ampere": ("kimi-k2", "24xA100-80G", {"kv_cache_dtype": "fp8"}, "throughput", "0.29.0"),
    "fp8_kv_cache_on_ampere": ("mixtral-8x7b", "2xA100-80G", {"kv_cache_dtype": "fp8"}, "throughput", "0.29.0"),
    "fp8_weights_without_fp8_arithmetic": ("mixtral-8x7b", "2xA100-80G", {}, "throughput", "0.29.0"),
    "prefix_caching_with_fp8_kv_cache": ("mixtral-8x7b", "2xH100", {"kv_cache_dtype": "fp8"}, "throughput", "0.5.4"),
    "prefix_caching_with_fp8_kv_cache_works": (
        "mixtral-8x7b", "2xH100", {"kv_cache_dtype": "fp8"}, "throughput", "0.5.5"
    ),
    "fp8_kv_cache_would_hold_more": ("mixtral-8x7b", "2xH100", {}, "throughput", "0.29.0"),
    "no_max_model_len": ("mixtral-8x7b", "2xH100", {}, "throughput", "0.29.0"),
    "high_memory_utilization": ("mixtral-8x7b", "2xH100", {"gpu_memory_utilization": 0.95}, "throughput", "0.29.0"),
    "pipeline_for_interactive_use": ("kimi-k2", "16xH100", {}, "latency", "0.29.0"),
    "all_to_all_over_pcie": (
        "mixtral-8x7b", "2xL40S", {"data_parallel_size": 2, "enable_expert_parallel": True}, "throughput", "0.29.0"
    ),
    "measure_expert_parallel_on_pcie": ("mixtral-8x22b", "4xA100-80G-PCIe", {}, "throughput", "0.29.0"),
    "tensor_parallel_over_pcie": ("mixtral-8x7b", "8xL40S", {}, "throughput", "0.29.0"),
    "tensor_group_straddles_nodes": (
        "kimi-k2", "16xH100", {"tensor_parallel_size": 16, "max_model_len": 8192}, "throughput", "0.29.0"
    ),
    "deep_gemm_needed": ("deepseek-v3.2", "8xH200", {}, "throughput", "0.29.0"),
    "data_parallel_without_moe": ("llama-3-70b", "4xH100", {"data_parallel_size": 2}, "throughput", "0.29.0"),
    "custom_code_needed": ("kimi-k2", "16xH100", {}, "throughput", "0.29.0"),
    "dtype_fp8": ("mistralai/Mixtral-8x22B-Instruct-v0.1", "4xH100", {"dtype": "fp8"}, "throughput", "0.29.0"),
}  # fmt: skip


@pytest.mark.parametrize("rule", built_in_rules(), ids=lambda rule: rule.code)
def test_every_rule_is_met_by_something_and_says_its_mend(rule: EngineRule) -> None:
    """Refused, warned of or noted as its severity says; `dtype fp8` is mended, and so only told."""
    model, gpus, arguments, objective, version = MET_BY[rule.code]
    request = replace(ask(model, gpus, objective=objective, **arguments), engine_version=version)
    found = search(request)
    if rule.severity == "error" and rule.code != "dtype_fp8":
        sentences = [out.result.reason for out in found.refused if isinstance(out.result, Refusal)]
    else:
        assert found.winner is not None
        warned = [warning.message for warning in warnings_of(found.winner)]
        sentences = [*notes_of(found.winner)] if rule.severity == "note" else warned
    mend = rule.mend.partition("{")[0]
    assert any(mend in sentence for sentence in sentences)


def test_a_note_is_no_warning() -> None:
    found = search(ask("mixtral-8x7b", "2xH100"))
    assert found.winner is not None
    assert any("kv_cache_dtype fp8 holds about twice as many tokens" in note for note in notes_of(found.winner))
    assert "fp8_kv_cache_would_hold_more" not in codes(planned("mixtral-8x7b", "2xH100"))


def test_every_sentence_knows_all_the_facts_it_speaks_of() -> None:
    """No rule that fires leaves a blank: a missing fact would be printed as unknown."""
    for model, gpus, arguments in (
        ("kimi-k2", "16xH100", {"tensor_parallel_size": 16, "max_model_len": 8192}),
        ("mixtral-8x7b", "8xL40S", {"gpu_memory_utilization": 0.95, "data_parallel_size": 2}),
        ("deepseek-v3.2", "8xH200", {"kv_cache_dtype": "fp8"}),
        ("mixtral-8x7b", "4xA100-80G-PCIe", {"kv_cache_dtype": "fp8"}),
    ):
        for warning in planned(model, gpus, objective="latency", **arguments).warnings:
            assert "unknown" not in warning.message
