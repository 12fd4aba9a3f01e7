"""Engine rules meet candidates: an error puts a candidate out with its mend, a warning goes into the plan."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import NoFeasiblePlan
from orchestrator.planner.notices import notes_of
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
