"""What the user fixed comes first, then the catalogue's preset, then the planner's default."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.entries import CatalogEntry, Preset
from orchestrator.catalog.registry import load_catalog, resolve_model
from orchestrator.cluster.spec import parse_gpus
from orchestrator.errors import ConfigError
from orchestrator.planner import make_plan
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.presets import engine_settings, preset_for

PRESETS = [(entry, preset) for entry in load_catalog().entries for preset in entry.presets]


@pytest.mark.parametrize(("entry", "preset"), PRESETS, ids=[f"{entry.name}-{preset.gpu}" for entry, preset in PRESETS])
def test_the_planner_finds_the_degrees_of_every_preset_by_itself(entry: CatalogEntry, preset: Preset) -> None:
    """And uses its settings; nothing of the preset is lost."""
    cluster = parse_gpus(f"{preset.num_gpus}x{preset.gpu}")
    wishes = Wishes(preset=engine_settings(preset), preset_source="preset", env=preset.env)
    plan = make_plan(build_request(resolve_model(entry.name), cluster, wishes))
    assert preset.engine_args.items() <= plan.engine.args.items()
    assert preset.env.items() <= plan.engine.env.items()
    assert preset_for(entry, cluster) == preset


def test_a_preset_is_for_its_own_number_and_family_of_gpus() -> None:
    found = load_catalog().find("mixtral-8x22b")
    assert found is not None
    entry, _ = found
    assert preset_for(entry, parse_gpus("4xA100-80G-PCIe")) is not None
    assert preset_for(entry, parse_gpus("8xA100-80G")) is None
    assert preset_for(entry, parse_gpus("4xA100-40G")) is None
    assert preset_for(entry, parse_gpus("2xH100,2xA100-80G")) is None
    assert preset_for(None, parse_gpus("4xA100-80G")) is None


def test_each_setting_names_its_origin() -> None:
    wishes = Wishes(arguments={"max_num_seqs": 8}, preset={"max_model_len": 4096}, preset_source="a preset")
    plan = make_plan(build_request(resolve_model("mixtral-8x7b"), parse_gpus("2xH100"), wishes))
    assert plan.sources["engine.max_num_seqs"] == "user"
    assert plan.sources["engine.max_model_len"] == "a preset"
    assert plan.sources["engine.gpu_memory_utilization"] == "planner default"
    assert plan.engine.args["max_model_len"] == 4096


def test_the_user_overrules_a_preset() -> None:
    wishes = Wishes(arguments={"max_model_len": 2048}, preset={"max_model_len": 4096}, preset_source="preset")
    plan = make_plan(build_request(resolve_model("mixtral-8x7b"), parse_gpus("2xH100"), wishes))
    assert plan.engine.args["max_model_len"] == 2048
    assert plan.sources["engine.max_model_len"] == "user"


@pytest.mark.parametrize(
    ("model", "arguments", "expected"),
    [
        ("kimi-k2", {"max_model_len": 131_073}, "made for 131,072 tokens"),
        ("kimi-k2", {"quantization": "awq"}, "leave quantization out"),
        ("kimi-k2-thinking", {"quantization": "fp8"}, "stored as 'compressed-tensors'"),
        ("mixtral-8x7b-base", {"quantization": "awq"}, "needs a checkpoint stored so"),
        ("kimi-k2", {"enable_eplb": True, "enable_expert_parallel": False}, "needs --enable-expert-parallel"),
        ("kimi-k2", {"max_num_batched_tokens": 8, "max_num_seqs": 16}, "must be at least max_num_seqs, 16"),
        ("kimi-k2", {"eplb_config": [1]}, "must be a JSON object"),
        ("kimi-k2", {"eplb_config": {"num_redundant_experts": -1}}, "num_redundant_experts is -1"),
        ("kimi-k2", {"expert_placement_strategy": "random"}, "linear or round_robin"),
        ("kimi-k2", {"dtype": "int3"}, "dtype 'int3'"),
    ],
)
def test_arguments_that_no_engine_takes_are_refused_by_name(
    model: str, arguments: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_plan(build_request(resolve_model(model), parse_gpus("16xH100"), Wishes(arguments=arguments)))


@pytest.mark.parametrize("arguments", [{}, {"max_num_seqs": 4096}, {"max_num_batched_tokens": 100}])
def test_lowered_batch_limits_are_ones_that_the_engine_takes(arguments: dict[str, Any]) -> None:
    """Never fewer tokens than sequences, and never other than what the user fixed."""
    request = build_request(resolve_model("kimi-k2"), parse_gpus("16xH100"), Wishes(arguments=arguments))
    lowered = request.engines[-1]
    assert lowered.max_num_batched_tokens is not None
    assert lowered.max_num_seqs is not None
    assert lowered.max_num_batched_tokens >= lowered.max_num_seqs
    for name, value in arguments.items():
        assert getattr(lowered, name) == value
