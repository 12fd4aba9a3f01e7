"""Engine rules are data: each holds for some versions and some facts, and says the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.engine_rules import (
    EngineRule,
    Fact,
    built_in_rules,
    load_rules,
    matching_rules,
    parse_version,
)
from orchestrator.errors import ConfigError

HOPPER: dict[str, Fact] = {
    "dtype": "auto", "quantization": "fp8", "kv_cache_dtype": "bfloat16", "enable_prefix_caching": True,
    "gpu_memory_utilization": 0.9, "max_model_len": 32768, "max_model_len_given": True, "is_moe": True,
    "is_mla": False, "is_sparse_attention": False, "compute_capability": 9.0, "gpu_type": "H100",
    "tensor": 8, "pipeline": 1, "data": 1, "expert": True, "straddles": False, "interconnect": "nvlink",
    "objective": "throughput", "trust_remote_code": False,
}  # fmt: skip
AMPERE: dict[str, Fact] = {"compute_capability": 8.0, "gpu_type": "A100-80G"}


def codes(facts: dict[str, Fact], version: str = "0.29.0", engine: str = "vllm") -> set[str]:
    """Errors and warnings; notes are no reason to hesitate."""
    matching = matching_rules({**HOPPER, **facts}, engine, version)
    return {rule.code for rule in matching if rule.severity != "note"}


def test_a_sound_plan_on_hopper_matches_no_rule() -> None:
    assert codes({}) == set()


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        ("dtype_fp8", {"dtype": "fp8"}),
        ("expert_parallel_without_moe", {"is_moe": False}),
        ("sparse_attention_needs_hopper", {"is_sparse_attention": True, **AMPERE}),
        ("fp8_kv_cache_mla_on_ampere", {"kv_cache_dtype": "fp8", "is_mla": True, **AMPERE}),
        ("fp8_kv_cache_on_ampere", {"kv_cache_dtype": "fp8_e4m3", **AMPERE}),
        ("fp8_weights_without_fp8_arithmetic", AMPERE),
        ("no_max_model_len", {"max_model_len_given": False}),
        ("high_memory_utilization", {"gpu_memory_utilization": 0.95}),
        ("pipeline_for_interactive_use", {"pipeline": 2, "objective": "latency"}),
        ("all_to_all_over_pcie", {"data": 2, "interconnect": "pcie"}),
        ("measure_expert_parallel_on_pcie", {"interconnect": "pcie"}),
        ("tensor_parallel_over_pcie", {"tensor": 4, "interconnect": "pcie"}),
        ("tensor_group_straddles_nodes", {"straddles": True}),
        ("deep_gemm_needed", {"is_sparse_attention": True}),
        ("data_parallel_without_moe", {"data": 2, "is_moe": False}),
        ("custom_code_needed", {"trust_remote_code": True}),
    ],
)
def test_each_rule_fires_for_its_own_case(expected: str, facts: dict[str, Fact]) -> None:
    assert expected in codes(facts)


def test_prefix_caching_with_an_fp8_cache_is_refused_by_old_engines_only() -> None:
    assert "prefix_caching_with_fp8_kv_cache" in codes({"kv_cache_dtype": "fp8"}, "0.5.4")
    assert "prefix_caching_with_fp8_kv_cache" not in codes({"kv_cache_dtype": "fp8"}, "0.5.5")
    assert "prefix_caching_with_fp8_kv_cache" not in codes({"kv_cache_dtype": "fp8"})


def test_a_utilisation_of_090_is_no_warning() -> None:
    assert "high_memory_utilization" not in codes({"gpu_memory_utilization": 0.92})


def test_an_unknown_fact_never_matches() -> None:
    assert codes({"compute_capability": None, "is_sparse_attention": True}) == {"deep_gemm_needed"}


def test_another_engine_has_only_the_rules_of_all_engines() -> None:
    assert codes({"dtype": "fp8", "straddles": True}, engine="sglang") == {"tensor_group_straddles_nodes"}


def test_every_rule_has_a_source_a_date_and_a_mend() -> None:
    for rule in built_in_rules():
        assert rule.source, rule.code
        assert rule.date, rule.code
        assert rule.mend, rule.code
    assert len({rule.code for rule in built_in_rules()}) == len(built_in_rules())


def test_a_sentence_gives_the_values_and_the_mend() -> None:
    (rule,) = [rule for rule in built_in_rules() if rule.code == "dtype_fp8"]
    assert "dtype fp8 is refused" in rule.sentence({"dtype": "fp8"})
    assert "quantization=fp8" in rule.sentence({"dtype": "fp8"})


@pytest.mark.parametrize(
    ("text", "expected"), [("0.29.0", (0, 29)), ("v0.5.5", (0, 5, 5)), ("0.30.0rc1", (0, 30)), ("1", (1,))]
)
def test_versions_compare_as_numbers(text: str, expected: tuple[int, ...]) -> None:
    assert parse_version(text) == expected


@given(st.integers(0, 60), st.integers(0, 60))
def test_version_bounds_are_those_of_numbers(bound: int, version: int) -> None:
    rule = EngineRule(
        code="c", severity="error", engine="vllm", versions=f">=0.{bound}", when={}, message="", mend="",
        source="", date="",
    )  # fmt: skip
    assert rule.applies_to("vllm", f"0.{version}.0") == (version >= bound)


def test_a_users_file_of_rules_is_read_and_a_bad_one_refused_by_field(tmp_path: Path) -> None:
    rule = built_in_rules()[0].model_dump()
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [rule]}))
    assert load_rules(path) == (built_in_rules()[0],)
    for change, expected in (
        ({"versions": "new"}, "versions"),
        ({"when": {"dtype": {"like": "fp8"}}}, "when"),
        ({"severity": "fatal"}, "severity"),
        ({"colour": "red"}, "colour"),
    ):
        path.write_text(json.dumps({"rules": [rule | change]}))
        with pytest.raises(ConfigError, match=f"rules.0.{expected}"):
            load_rules(path)


def test_which_side_of_the_prefix_caching_rule_applies_is_said() -> None:
    facts = {**HOPPER, "kv_cache_dtype": "fp8"}
    notes = {rule.code for rule in matching_rules(facts, "vllm", "0.29.0") if rule.severity == "note"}
    assert notes == {"prefix_caching_with_fp8_kv_cache_works"}
    assert not {rule.code for rule in matching_rules(facts, "vllm", "0.5.4") if rule.severity == "note"}
