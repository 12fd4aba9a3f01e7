"""kimi-k2-mini: Kimi K2's own architecture with its true attention head sizes, and everything else small.

The weights are random, but saved: every layout of tensor and pipeline parallelism loads the same ones, so
greedy tokens can be compared across layouts, which weights drawn by each rank for itself do not allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.demo.checkpoint import (
    ITEM_BYTES,
    WEIGHTS,
    StoredTensor,
    store,
    write_json,
    write_safetensors,
)
from orchestrator.demo.gguf_model import GgufModel
from orchestrator.demo.options import KimiK2MiniOptions
from orchestrator.demo.random_weights import normal, preference
from orchestrator.demo.staging import Progress
from orchestrator.demo.tokenizer import Tokenizer
from orchestrator.units import format_bytes

Shape = tuple[int, ...]

# Sizes, with Kimi K2's own where they differ.
# 8 heads make tensor parallel 8 legal, 6 layers pipelines of 2 and 3.
_HIDDEN = 256  # 7168
_LAYERS = 6  # 61
_DENSE_LAYERS = 1
_HEADS = 8  # 64
_DENSE_MLP = 640  # 18432
_EXPERT_MLP = 64  # 2048
_EXPERTS = 32  # 384
_VOCABULARY = 49_152  # 163840; the tokenizer is smol-moe's
_Q_RANK = 128  # 1536
# MLA kernels are made for exactly these.
_KV_RANK, _ROPE, _NOPE, _VALUE = 512, 64, 128, 128

# config.json of moonshotai/Kimi-K2-Instruct, key for key, but for its FP8 quantisation and its `auto_map`:
# vLLM knows model_type kimi_k2 by itself (transformers_utils/config.py), so no code comes along.
# transformers alone does not know it; there the same weights load as deepseek_v3.
_CONFIG: Mapping[str, object] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "kimi_k2",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "aux_loss_alpha": 0.001,
    "first_k_dense_replace": _DENSE_LAYERS,
    "hidden_act": "silu",
    "hidden_size": _HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": _DENSE_MLP,
    "kv_lora_rank": _KV_RANK,
    "max_position_embeddings": 131_072,
    "moe_intermediate_size": _EXPERT_MLP,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": _EXPERTS,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": _HEADS,
    "num_experts_per_tok": 8,
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": _HEADS,
    "num_nextn_predict_layers": 0,
    "pretraining_tp": 1,
    "q_lora_rank": _Q_RANK,
    "qk_nope_head_dim": _NOPE,
    "qk_rope_head_dim": _ROPE,
    "rms_norm_eps": 1e-06,
    "rope_theta": 50_000.0,
    "routed_scaling_factor": 2.827,
    "rope_scaling": {
        "beta_fast": 1.0,
        "beta_slow": 1.0,
        "factor": 32.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "scoring_func": "sigmoid",
    "seq_aux": True,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "use_cache": True,
    "v_head_dim": _VALUE,
    "vocab_size": _VOCABULARY,
}

_MLA: Mapping[str, Shape] = {
    "q_a_proj": (_Q_RANK, _HIDDEN),
    "q_a_layernorm": (_Q_RANK,),
    "q_b_proj": (_HEADS * (_NOPE + _ROPE), _Q_RANK),
    "kv_a_proj_with_mqa": (_KV_RANK + _ROPE, _HIDDEN),
    "kv_a_layernorm": (_KV_RANK,),
    "kv_b_proj": (_HEADS * (_NOPE + _VALUE), _KV_RANK),
    "o_proj": (_HIDDEN, _HEADS * _VALUE),
}

_BIAS = "e_score_correction_bias"
# A sigmoid climbs at most this fast: a bias of a quarter moves a choice about as far as one logit does.
_SCORE_PER_LOGIT = 0.25
_BIAS_STD = 0.02


def size_bytes(options: KimiK2MiniOptions) -> int:
    """Bytes of the weights (the 640 bytes that the routers' float32 biases add are left out)."""
    return sum(math.prod(shape) for _, shape in tensor_shapes()) * ITEM_BYTES[options.dtype]


def build(folder: Path, dense: GgufModel, options: KimiK2MiniOptions, progress: Progress) -> None:
    """Write the checkpoint into `folder`; of the dense model only the tokenizer is used."""
    tokenizer = Tokenizer.from_gguf(dense.metadata)
    tokenizer.write(folder)
    write_json(folder / "config.json", config(tokenizer, options))
    (folder / "README.md").write_text(_README.format(seed=options.seed), encoding="utf-8")
    progress(f"drawing and writing {format_bytes(size_bytes(options))} of weights")
    tensors = {name: draw(name, shape, options) for name, shape in tensor_shapes()}
    write_safetensors(folder / WEIGHTS, tensors)


def config(tokenizer: Tokenizer, options: KimiK2MiniOptions) -> dict[str, object]:
    """`config.json`."""
    return {**_CONFIG, **tokenizer.token_ids(), "torch_dtype": options.dtype}


def tensor_shapes() -> Iterator[tuple[str, Shape]]:
    """Every tensor of the checkpoint, (outputs, inputs) for a matrix."""
    yield "model.embed_tokens.weight", (_VOCABULARY, _HIDDEN)
    for layer in range(_LAYERS):
        for part, shape in _layer_shapes(dense=layer < _DENSE_LAYERS):
            yield f"model.layers.{layer}.{part}", shape
    yield "model.norm.weight", (_HIDDEN,)
    yield "lm_head.weight", (_VOCABULARY, _HIDDEN)


def draw(name: str, shape: Shape, options: KimiK2MiniOptions) -> StoredTensor:
    """The values of one tensor: norms are 1, matrices keep the variance of what passes through them."""
    if name.endswith(_BIAS):
        return store(_router_bias(name, options), "float32")  # as in Kimi K2: the choice is made in full precision
    return store(_ones_or_normal(name, shape, options.seed), options.dtype)


def _layer_shapes(*, dense: bool) -> Iterator[tuple[str, Shape]]:
    yield "input_layernorm.weight", (_HIDDEN,)
    yield from ((f"self_attn.{part}.weight", shape) for part, shape in _MLA.items())
    yield "post_attention_layernorm.weight", (_HIDDEN,)
    yield from (_mlp_shapes("mlp", _DENSE_MLP) if dense else _moe_shapes())


def _moe_shapes() -> Iterator[tuple[str, Shape]]:
    yield "mlp.gate.weight", (_EXPERTS, _HIDDEN)
    yield f"mlp.gate.{_BIAS}", (_EXPERTS,)
    yield from _mlp_shapes("mlp.shared_experts", _EXPERT_MLP)
    for expert in range(_EXPERTS):
        yield from _mlp_shapes(f"mlp.experts.{expert}", _EXPERT_MLP)


def _mlp_shapes(prefix: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{prefix}.gate_proj.weight", (width, _HIDDEN)
    yield f"{prefix}.up_proj.weight", (width, _HIDDEN)
    yield f"{prefix}.down_proj.weight", (_HIDDEN, width)


def _ones_or_normal(name: str, shape: Shape, seed: int) -> Any:
    import numpy as np

    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    # An embedding is looked up, not multiplied: its inputs count as one.
    inputs = 1 if name.startswith("model.embed_tokens") else shape[1]
    return normal(name, shape, seed=seed, std=1 / math.sqrt(inputs))


def _router_bias(name: str, options: KimiK2MiniOptions) -> Any:
    import numpy as np

    wished = np.array(preference(_EXPERTS, options.router_skew), dtype=np.float32)
    return normal(name, (_EXPERTS,), seed=options.seed, std=_BIAS_STD) + wished * np.float32(_SCORE_PER_LOGIT)


_README = """\
# kimi-k2-mini

The architecture of Kimi K2 with its true attention head sizes and everything else small.
The weights are random (seed {seed}): it makes tokens, not sense.
The tokenizer is that of SmolLM2-135M-Instruct by HuggingFaceTB (Apache-2.0).
"""
