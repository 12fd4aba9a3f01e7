"""Quantisation of checkpoints: bytes of each scheme, and which modules a scheme covers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.fields import Fields
from orchestrator.catalog.quantization import Quantization, WeightScheme, matches
from orchestrator.catalog.read_quantization import read_quantization
from orchestrator.errors import ConfigError

FP8_BLOCK = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def read(config: dict[str, Any]) -> Quantization:
    fields = Fields({"quantization_config": config}, "config.json")
    quantization = read_quantization(fields, fields)
    assert quantization is not None
    return quantization


def compressed(**weights: Any) -> Quantization:
    group = {"targets": ["Linear"], "weights": weights}
    return read({"quant_method": "compressed-tensors", "config_groups": {"group_0": group}})


@pytest.mark.parametrize(
    ("scheme", "size_bytes"),
    [
        (WeightScheme("fp8", "tensor"), 512 * 256 + 4),
        (WeightScheme("fp8", "channel"), 512 * 256 + 512 * 4),
        (WeightScheme("fp8", "block", (128, 128)), 512 * 256 + 4 * 2 * 4),
        (WeightScheme("int8", "channel", scale_bytes=2), 512 * 256 + 512 * 2),
        (WeightScheme("int4", "group", (1, 32), 2), 512 * 128 + 512 * 8 * 2),
        # A four-bit zero point beside each scale.
        (WeightScheme("int4", "group", (1, 128), 2, zero_points=True), 512 * 128 + 512 * 2 * 2 + 512),
        (WeightScheme("mxfp4", "group", (1, 32), 1), 512 * 128 + 512 * 8),
        (WeightScheme("mxfp8", "group", (1, 32), 1), 512 * 256 + 512 * 8),
        # Two scales of the whole matrix.
        (WeightScheme("nvfp4", "group", (1, 16), 1), 512 * 128 + 512 * 16 + 8),
    ],
)
def test_stored_bytes_include_scales(scheme: WeightScheme, size_bytes: int) -> None:
    """512 rows by 256 columns in every scheme."""
    assert scheme.stored_bytes(512, 256) == size_bytes


def test_blocks_that_do_not_divide_are_rounded_up() -> None:
    """576 rows have five blocks of 128."""
    assert WeightScheme("fp8", "block", (128, 128)).stored_bytes(576, 256) == 576 * 256 + 5 * 2 * 4


@pytest.mark.parametrize(
    ("pattern", "module", "named"),
    [
        ("gate", "model.layers.3.mlp.gate", True),
        ("gate", "model.layers.3.mlp.gate_proj", False),
        ("lm_head", "lm_head", True),
        ("model.layers.3", "model.layers.3.mlp.gate", True),
        ("model.layers.3", "model.layers.31.mlp.gate", False),
        ("model.layers.*.self_attn", "model.layers.7.self_attn.q_proj", True),
        ("model.layers.*.self_attn", "model.layers.7.mlp.gate", False),
        ("re:.*self_attn.*", "model.layers.7.self_attn.q_proj", True),
        (r"re:.*mlp\.(gate|up|down)_proj.*", "model.layers.7.mlp.experts.0.gate_proj", False),
    ],
)
def test_patterns_name_whole_components(pattern: str, module: str, named: bool) -> None:
    """A bare name is a component, `*` is anything, `re:` is an expression from the start."""
    assert matches(pattern, module) is named


@pytest.mark.parametrize(
    ("quantization", "scheme"),
    [
        (read(FP8_BLOCK), WeightScheme("fp8", "block", (128, 128))),
        (read({"quant_method": "fp8", "activation_scheme": "static"}), WeightScheme("fp8", "tensor")),
        (
            read({"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}),
            WeightScheme("int4", "group", (1, 128), 2, zero_points=True),
        ),
        (
            read({"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": True}),
            WeightScheme("int4", "group", (1, 64), 2, zero_points=True, column_index=True),
        ),
        (
            compressed(num_bits=4, type="int", strategy="group", group_size=32, symmetric=True),
            WeightScheme("int4", "group", (1, 32), 2),
        ),
        (compressed(num_bits=8, type="float", strategy="channel"), WeightScheme("fp8", "channel")),
        (
            compressed(num_bits=8, type="int", strategy="channel", symmetric=True),
            WeightScheme("int8", "channel"),
        ),
        (
            compressed(num_bits=4, type="float", strategy="tensor_group", group_size=16),
            WeightScheme("nvfp4", "group", (1, 16), 1),
        ),
        (read({"quant_method": "modelopt", "quant_algo": "FP8"}), WeightScheme("fp8", "tensor")),
        (
            read({"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16}),
            WeightScheme("nvfp4", "group", (1, 16), 1),
        ),
    ],
)
def test_every_method_is_read(quantization: Quantization, scheme: WeightScheme) -> None:
    """The scheme of an expert's matrix, method by method."""
    assert quantization.scheme_for("model.layers.3.mlp.experts.0.up_proj") == scheme


def test_mxfp4_covers_nothing_but_routed_experts() -> None:
    """vLLM leaves every other layer of an MXFP4 checkpoint in its own type."""
    quantization = read({"quant_method": "mxfp4"})
    assert quantization.scheme_for("model.layers.0.mlp.experts.0.up_proj") is not None
    assert quantization.scheme_for("model.layers.0.self_attn.q_proj") is None


def test_groups_of_compressed_tensors_have_their_own_schemes() -> None:
    """Attention in FP8 beside experts in INT4, as their targets say."""
    groups = {
        "experts": {
            "targets": ["re:.*experts.*"],
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32},
        },
        "rest": {
            "targets": ["re:.*self_attn.*"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
        },
    }
    quantization = read({"quant_method": "compressed-tensors", "config_groups": groups})
    expert = quantization.scheme_for("model.layers.1.mlp.experts.0.up_proj")
    attention = quantization.scheme_for("model.layers.1.self_attn.q_proj")
    assert expert is not None
    assert attention is not None
    assert (expert.format, attention.format) == ("int4", "fp8")
    assert quantization.scheme_for("model.layers.0.mlp.up_proj") is None


def test_an_fp8_cache_may_come_with_the_checkpoint() -> None:
    """`kv_cache_scheme` makes FP8 the cache's own type."""
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float", "strategy": "tensor"}}
    config = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "kv_cache_scheme": {"num_bits": 8, "type": "float"},
    }
    assert read(config).kv_cache_dtype == "fp8"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quant_method": "exl3"}, "exl3"),
        ({}, "quant_method or quant_algo is missing"),
        ({"quant_method": "compressed-tensors"}, "config_groups is missing"),
        ({"quant_method": "awq", "bits": 3}, "bits is 3"),
        ({"quant_method": "modelopt", "quant_algo": "W2"}, "quant_algo 'W2'"),
    ],
)
def test_an_unknown_scheme_is_refused(config: dict[str, Any], said: str) -> None:
    """A scheme that is not known has no guessed size."""
    with pytest.raises(ConfigError, match=said):
        read(config)
