"""What vLLM cannot build is refused, by a code and a sentence with the numbers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.registry import resolve_model
from orchestrator.memory.layout import Layout
from orchestrator.planner.legality import Refusal, refuse


def refusal(model: str, *, by_choice: bool = False, **degrees: Any) -> Refusal | None:
    spec = resolve_model(model)
    return refuse(spec, Layout(**degrees), spec.quantization, by_choice)


@pytest.mark.parametrize(
    ("model", "degrees", "code", "numbers"),
    [
        ("kimi-k2", {"tensor": 6}, "heads_not_divisible", "64 attention heads"),
        ("llama-4-maverick", {"tensor": 6}, "heads_not_divisible", "40 attention heads"),
        ("mixtral-8x22b", {"tensor": 3}, "kv_heads_not_divisible", "8 key-value heads"),
        ("qwen2-57b-a14b", {"tensor": 8}, "heads_not_divisible", "28 attention heads"),
        ("mixtral-8x7b", {"pipeline": 33}, "more_stages_than_layers", "32 layers"),
        ("llama-3-70b", {"tensor": 2, "expert": True}, "expert_parallel_without_moe", "dense"),
        (
            "mixtral-8x7b",
            {"tensor": 2, "data": 8, "expert": True},
            "more_ranks_than_experts",
            "16 ranks for 8",
        ),
        (
            "deepseek-v3",
            {"tensor": 8, "redundant_experts": 8},
            "redundant_experts_without_expert_parallel",
            "",
        ),
        (
            "deepseek-v3",
            {"tensor": 8, "expert": True, "redundant_experts": 3},
            "redundant_experts_uneven",
            "256 experts and 3 copies",
        ),
        ("mixtral-8x7b", {"tensor": 8, "decode_context": 2}, "decode_context_too_large", "makes 1"),
        (
            "kimi-k2",
            {"tensor": 8, "decode_context": 3},
            "decode_context_not_divisible",
            "8 does not divide by 3",
        ),
        ("qwen3-235b-a22b", {"tensor": 8}, "fp8_block_cut", "192 wide"),
        ("minimax-m2.5", {"tensor": 16}, "fp8_block_cut", "96 wide"),
        ("kimi-k2-thinking", {"tensor": 32, "data": 4}, "quantization_block_cut", "16 wide"),
    ],
)
def test_an_illegal_layout_is_refused_by_code_and_number(
    model: str, degrees: dict[str, Any], code: str, numbers: str
) -> None:
    found = refusal(model, **degrees)
    assert found is not None
    assert found.code == code
    assert numbers in found.reason
    assert found.missing_bytes is None


@pytest.mark.parametrize(
    ("model", "degrees"),
    [
        ("kimi-k2", {"tensor": 8, "pipeline": 2}),
        ("kimi-k2", {"tensor": 16}),
        ("deepseek-v3.2", {"tensor": 8, "expert": True}),
        ("deepseek-v3.2", {"tensor": 8, "decode_context": 8}),
        ("qwen3-235b-a22b", {"tensor": 8, "expert": True}),
        ("qwen3-235b-a22b", {"tensor": 4, "decode_context": 1}),
        ("mixtral-8x22b", {"tensor": 4, "expert": True}),
        ("gpt-oss-120b", {"tensor": 8}),
        ("deepseek-v3", {"tensor": 8, "expert": True, "redundant_experts": 8}),
        ("kimi-k2-thinking", {"tensor": 8}),
    ],
)
def test_a_legal_layout_passes(model: str, degrees: dict[str, Any]) -> None:
    assert refusal(model, **degrees) is None


def test_cut_fp8_blocks_pass_where_somebody_insists_and_vllm_can_refine_them() -> None:
    """vLLM 0.29 refines blocks of 128 to 64 for 192 wide experts, but not below 32."""
    assert refusal("qwen3-235b-a22b", by_choice=True, tensor=8) is None
    assert "refine the blocks to 64" in (refusal("qwen3-235b-a22b", tensor=8) or Refusal("", "")).reason


def test_experts_whose_blocks_cannot_be_refined_are_refused_even_so() -> None:
    """2048 over 128 ranks is 16 wide."""
    found = refusal("kimi-k2", by_choice=True, tensor=64, data=2)
    assert found is not None
