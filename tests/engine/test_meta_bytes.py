"""Bytes of quantised weights held to vLLM's own layers: FP8, INT4 and MXFP4, exactly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.registry import load_catalog
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import cut_of, stage_totals
from orchestrator.memory.weights import UNPADDED, ExpertPadding
from tests.engine.meta_model import Rank
from tests.engine.meta_quantised import stored_bytes
from tests.engine.test_meta_parameters import CONFIGS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LAYERS = 6
LAYOUTS = (
    (Layout(), Rank()),
    (Layout(tensor=4), Rank(tensor_rank=3)),
    (Layout(tensor=4, expert=True), Rank(tensor_rank=1)),
    (Layout(tensor=2, pipeline=2), Rank(stage=1)),
)


def published(name: str) -> dict[str, Any]:
    """A published config with fewer layers, quantised as its checkpoint is."""
    config: dict[str, Any] = json.loads(CONFIGS.joinpath(f"{name}.json").read_text("utf-8"))
    config["num_hidden_layers"] = LAYERS
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:LAYERS]
    return config


def ours(config: dict[str, Any], layout: Layout, rank: Rank, padding: ExpertPadding = UNPADDED) -> int:
    spec = ModelSpec.from_hf(config, name="test", source="test")
    cut = replace(cut_of(spec, layout, rank.tensor_rank, rank.data_rank), padding=padding)
    layers = layout.stage_layers(spec.num_layers)[rank.stage]
    return stage_totals(spec, spec.quantization, spec.dtype, layers, cut).size_bytes


@pytest.mark.parametrize(
    "name",
    [
        "moonshotai--Kimi-K2-Instruct",
        "moonshotai--Kimi-K2-Thinking",
        "deepseek-ai--DeepSeek-V3.2",
        "Qwen--Qwen3-235B-A22B-FP8",
        "MiniMaxAI--MiniMax-M2.5",
    ],
)
def test_quantised_bytes_are_what_the_engine_stores(name: str, tmp_path: Path) -> None:
    """FP8 in blocks and INT4 in groups, with the parts that each checkpoint leaves alone."""
    config = published(name)
    for layout, rank in LAYOUTS:
        assert ours(config, layout, rank) == stored_bytes(config, layout, rank, tmp_path), (layout, rank)


def test_blocks_that_a_cut_goes_through_are_refined(tmp_path: Path) -> None:
    """Qwen3's experts are 192 wide at tensor 8: vLLM refines their blocks of 128 to 64."""
    config, layout = published("Qwen--Qwen3-235B-A22B-FP8"), Layout(tensor=8)
    assert ours(config, layout, Rank()) == stored_bytes(config, layout, Rank(), tmp_path)


@pytest.mark.parametrize("name", ["mixtral-8x22b", "qwen2-57b-a14b"])
def test_fp8_with_one_scale_a_matrix_is_what_the_engine_stores(name: str, tmp_path: Path) -> None:
    """The catalogue's default checkpoints by their own quantisation."""
    found = load_catalog().find(name)
    assert found is not None
    config = {**published(found[1].config.removesuffix(".json"))}
    config["quantization_config"] = found[1].quantization_config
    for layout, rank in LAYOUTS:
        difference = ours(config, layout, rank) - stored_bytes(config, layout, rank, tmp_path)
        assert abs(difference) <= 4 * LAYERS, (layout, rank)


DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "num_hidden_layers": LAYERS,
    "max_position_embeddings": 4096,
}
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "dynamic": False}
BY_OUTPUT = {"num_bits": 8, "strategy": "channel", "symmetric": True, "dynamic": False}
BY_TOKEN = {"num_bits": 8, "strategy": "token", "symmetric": True, "dynamic": True}


def compressed(format_: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    method = {"quant_method": "compressed-tensors", "format": format_, "ignore": ["lm_head"]}
    return {**method, "config_groups": {"group_0": group}}


SCHEMES = {
    "AWQ": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"},
    "FP8 by output": compressed("float-quantized", {**BY_OUTPUT, "type": "float"}, {**BY_TOKEN, "type": "float"}),
    "INT8 by output": compressed("int-quantized", {**BY_OUTPUT, "type": "int"}, {**BY_TOKEN, "type": "int"}),
    "INT4 in groups": compressed("pack-quantized", {**INT4, "symmetric": True}),
    "INT4 with zero points": compressed("pack-quantized", {**INT4, "symmetric": False}),
}


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_of_dense_layers_are_what_the_engine_stores(name: str, tmp_path: Path) -> None:
    """AWQ and the schemes of compressed-tensors, but for a few scales of the cache."""
    config = {**DENSE, "quantization_config": SCHEMES[name]}
    for layout in (Layout(), Layout(tensor=2)):
        difference = ours(config, layout, Rank()) - stored_bytes(config, layout, Rank(), tmp_path)
        assert abs(difference) <= 16 * LAYERS, layout


@pytest.mark.parametrize(("backend", "padding"), [("MARLIN", ExpertPadding(128, 256)), ("TRITON", ExpertPadding(64))])
def test_mxfp4_experts_are_padded_as_the_kernels_want(backend: str, padding: ExpertPadding, tmp_path: Path) -> None:
    """gpt-oss: inner sizes and hidden sizes rounded up, biases with them."""
    config = published("openai--gpt-oss-120b")
    for layout, rank in LAYOUTS:
        expected = stored_bytes(config, layout, rank, tmp_path, backend)
        assert ours(config, layout, rank, padding) == expected, (layout, rank)
