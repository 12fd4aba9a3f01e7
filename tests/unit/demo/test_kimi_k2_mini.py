"""kimi-k2-mini keeps what kernels and layouts depend on, and stays small."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.demo.kimi_k2_mini import config, draw, size_bytes, tensor_shapes
from orchestrator.demo.options import KimiK2MiniOptions
from orchestrator.demo.tokenizer import Tokenizer
from tests.unit.demo.test_tokenizer import METADATA

OPTIONS = KimiK2MiniOptions()
CONFIG = config(Tokenizer.from_gguf(METADATA), OPTIONS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_checkpoint_is_at_most_200_mb(dtype: str) -> None:
    assert size_bytes(KimiK2MiniOptions.model_validate({"dtype": dtype})) <= 200_000_000


def test_attention_keeps_kimis_head_sizes() -> None:
    names = ("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    assert [CONFIG[name] for name in names] == [512, 64, 128, 128]


@pytest.mark.parametrize(
    "name",
    ["num_attention_heads", "intermediate_size", "moe_intermediate_size", "vocab_size", "n_routed_experts"],
)
def test_tensor_parallel_8_divides(name: str) -> None:
    size = CONFIG[name]
    assert isinstance(size, int)
    assert size % 8 == 0


def test_no_code_comes_with_the_checkpoint() -> None:
    assert CONFIG["model_type"] == "kimi_k2"
    assert "auto_map" not in CONFIG
    assert "quantization_config" not in CONFIG


def test_the_first_layer_is_dense_and_the_others_route() -> None:
    names = [name for name, _ in tensor_shapes()]
    assert "model.layers.0.mlp.gate_proj.weight" in names
    routers = [name for name in names if name.endswith("mlp.gate.weight")]
    assert routers == [f"model.layers.{layer}.mlp.gate.weight" for layer in range(1, 6)]
    assert sum("layers.5.mlp.experts." in name for name in names) == 32 * 3


def test_a_tensor_depends_on_its_name_and_the_seed_alone() -> None:
    first, again = (draw("x.weight", (4, 8), OPTIONS).data for _ in range(2))
    assert (first == again).all()
    assert (first != draw("y.weight", (4, 8), OPTIONS).data).any()
    assert (first != draw("x.weight", (4, 8), KimiK2MiniOptions(seed=1)).data).any()


def test_the_router_bias_is_float32_and_carries_the_skew() -> None:
    plain, skewed = (
        draw("mlp.gate.e_score_correction_bias", (32,), KimiK2MiniOptions(router_skew=skew)) for skew in (0, 4)
    )
    assert plain.dtype == "float32"
    assert (skewed.data - plain.data).tolist() == pytest.approx(np.linspace(1.0, 0.0, 32).tolist(), abs=1e-6)
