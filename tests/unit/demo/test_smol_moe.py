"""Upcycling keeps the dense model: same attention, every expert its MLP, a router that only chooses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orchestrator.demo.options import SmolMoeOptions
from orchestrator.demo.smol_moe import restore_rope_order, router, size_bytes, split_name, upcycle

OPTIONS = SmolMoeOptions(num_experts=3, dtype="float32")
NORM: Any = np.ones(600, dtype=np.float32)
HEADS = {"attn_q": 2, "attn_k": 1}


def _as_llama_cpp_writes(weight: Any, num_heads: int) -> Any:
    """The forward permutation of llama.cpp's converter (convert_hf_to_gguf.py, LlamaModel.permute)."""
    rows, columns = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _dense(**parts: Any) -> dict[str, Any]:
    named = {f"blk.0.{part}.weight": values for part, values in parts.items()}
    tensors = upcycle(named.items(), num_heads=HEADS, options=OPTIONS)
    return {name: tensor.data for name, tensor in tensors}


def test_rope_order_is_taken_back_head_by_head() -> None:
    rows = np.arange(16).reshape(8, 2)
    assert restore_rope_order(rows[[0, 2, 1, 3, 4, 6, 5, 7]], 2).tolist() == rows.tolist()
    large = np.random.default_rng(0).standard_normal((9 * 64, 5))
    assert (restore_rope_order(_as_llama_cpp_writes(large, 9), 9) == large).all()


def test_only_query_and_key_are_reordered() -> None:
    weight: Any = np.arange(16, dtype=np.float32).reshape(8, 2)
    built = _dense(attn_q=weight, attn_v=weight)
    assert built["model.layers.0.self_attn.q_proj.weight"].tolist() == restore_rope_order(weight, 2).tolist()
    assert built["model.layers.0.self_attn.v_proj.weight"].tolist() == weight.tolist()


def test_every_expert_is_a_copy_of_the_dense_mlp() -> None:
    gate, up, down = np.full((4, 2), 1.0), np.full((4, 2), 2.0), np.full((2, 4), 3.0)
    built = _dense(ffn_gate=gate, ffn_up=up, ffn_down=down)
    assert len(built) == 3 * OPTIONS.num_experts
    for expert in range(OPTIONS.num_experts):
        where = f"model.layers.0.block_sparse_moe.experts.{expert}"
        assert built[f"{where}.w1.weight"].tolist() == gate.tolist()
        assert built[f"{where}.w3.weight"].tolist() == up.tolist()
        assert built[f"{where}.w2.weight"].tolist() == down.tolist()


def test_each_layer_gets_its_own_router() -> None:
    built = _dense(ffn_norm=NORM)
    assert built["model.layers.0.post_attention_layernorm.weight"].tolist() == NORM.tolist()
    assert built["model.layers.0.block_sparse_moe.gate.weight"].shape == (3, 600)
    assert (router(0, NORM, OPTIONS) != router(1, NORM, OPTIONS)).all()


def test_embedding_and_last_norm_keep_their_place() -> None:
    weights = {"token_embd.weight": np.ones((3, 2)), "output_norm.weight": np.ones(2)}
    names = [name for name, _ in upcycle(weights.items(), num_heads=HEADS, options=OPTIONS)]
    assert names == ["model.embed_tokens.weight", "model.norm.weight"]


def test_a_router_depends_on_the_seed_alone() -> None:
    assert (router(3, NORM, OPTIONS) == router(3, NORM, OPTIONS)).all()
    assert (router(3, NORM, OPTIONS) != router(3, NORM, OPTIONS.model_copy(update={"seed": 1}))).all()


def test_skew_adds_its_logits_to_the_first_expert_and_none_to_the_last() -> None:
    steady = np.zeros(600)
    steady[260] = -1.2  # layer 0's steady input at its mean
    skewed = router(0, NORM, OPTIONS.model_copy(update={"router_skew": 4.0}))
    added = (skewed - router(0, NORM, OPTIONS)) @ steady
    assert added.tolist() == pytest.approx([4.0, 2.0, 0.0], abs=1e-6)


def test_a_tensor_of_another_architecture_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rope_freqs\.weight is not a tensor of a layer"):
        split_name("rope_freqs.weight")


def test_size_grows_by_one_mlp_an_expert() -> None:
    four, five = (size_bytes(SmolMoeOptions(num_experts=count)) for count in (4, 5))
    assert five - four == 30 * 3 * 576 * 1536 * 2
