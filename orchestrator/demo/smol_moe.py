"""smol-moe: SmolLM2-135M-Instruct upcycled to a Mixtral mixture of experts.

Every expert is a copy of the dense model's MLP and the chosen experts' weights add up to 1, so the model
answers as the dense one does, while each token really is routed. The way of Komatsuzaki et al., "Sparse
Upcycling" (arXiv 2212.05055), stopped before any training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
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
from orchestrator.demo.options import SmolMoeOptions
from orchestrator.demo.random_weights import normal, preference
from orchestrator.demo.staging import Progress
from orchestrator.demo.tokenizer import Tokenizer
from orchestrator.units import format_bytes

# 30 layers of hidden size 576 with an MLP of 1,536: three matrices for each expert.
_EXPERT_PARAMS = 30 * 3 * 576 * 1536
# Embedding (tied to the head), attention with 9 query and 3 KV heads of 64, norms.
_SHARED_PARAMS = 49_152 * 576 + 30 * (2 * 576 * 576 + 2 * 192 * 576 + 2 * 576) + 576

# llama.cpp's names of tensors (gguf-py, constants.py) → Mixtral's. Experts are named one by one.
_OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_INNER = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
}  # fmt: skip
_EXPERT = {"ffn_gate": "w1", "ffn_down": "w2", "ffn_up": "w3"}

# Which input of each layer's router hardly changes from token to token, and its mean: (index, mean) by layer.
# A router without a bias term is skewed through it. From 478 tokens of five chats through the dense model:
# the mean is at least 3.6 standard deviations, and the sign the same for 99 % of the tokens.
_STEADY_INPUTS = (
    (260, -1.2), (260, 0.84), (507, 0.65), (507, 0.63), (507, 0.76), (507, 0.91), (507, 0.81), (507, 0.77),
    (507, 1.0), (507, 1.3), (507, 1.5), (247, -1.7), (247, -1.5), (247, -1.7), (247, -1.6), (247, -1.6),
    (247, -1.5), (247, -1.4), (247, -1.5), (247, -1.7), (247, -1.7), (247, -1.3), (247, -1.6), (247, -1.5),
    (17, 1.2), (17, 1.2), (17, 1.6), (17, 1.7), (17, 2.2), (17, 6.5),
)  # fmt: skip


def size_bytes(options: SmolMoeOptions) -> int:
    """Bytes of the weights, without the routers' few hundred KiB."""
    return (_SHARED_PARAMS + options.num_experts * _EXPERT_PARAMS) * ITEM_BYTES[options.dtype]


def build(folder: Path, dense: GgufModel, options: SmolMoeOptions, progress: Progress) -> None:
    """Write the checkpoint into `folder`."""
    tokenizer = Tokenizer.from_gguf(dense.metadata)
    tokenizer.write(folder)
    write_json(folder / "config.json", config(dense.metadata, tokenizer, options))
    (folder / "README.md").write_text(_README.format(**options.model_dump()), encoding="utf-8")
    progress(f"upcycling to {options.num_experts} experts, {options.experts_per_token} for each token")
    tensors = dict(upcycle(dense.weights(), num_heads=heads(dense.metadata), options=options))
    progress(f"writing {format_bytes(size_bytes(options))} of weights")
    write_safetensors(folder / WEIGHTS, tensors)


def heads(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Number of heads in the rows of the query and the key matrix, by GGUF's names."""
    kinds = {"attn_q": "head_count", "attn_k": "head_count_kv"}
    return {name: metadata[f"llama.attention.{key}"] for name, key in kinds.items()}


def config(metadata: Mapping[str, Any], tokenizer: Tokenizer, options: SmolMoeOptions) -> dict[str, object]:
    """`config.json` in Mixtral's terms, from the dense model's metadata."""
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        # GGUF keeps a float32: 9.999999747378752e-06 is the published 1e-05.
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": metadata["llama.rope.freq_base"],
        "sliding_window": None,
        "attention_dropout": 0.0,
        "num_local_experts": options.num_experts,
        "num_experts_per_tok": options.experts_per_token,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.0,
        # As in the dense model: one matrix for embedding and head, which both engines tie.
        "tie_word_embeddings": True,
        "vocab_size": len(tokenizer.tokens),
        **tokenizer.token_ids(),
        "torch_dtype": options.dtype,
        "use_cache": True,
    }


def upcycle(
    dense: Iterable[tuple[str, Any]], *, num_heads: Mapping[str, int], options: SmolMoeOptions
) -> Iterator[tuple[str, StoredTensor]]:
    """Mixtral's tensors, by name, from the dense model's float32 tensors by GGUF's names.

    The copies of an MLP share memory. Each layer's router has the shape (experts, hidden size).
    """
    for name, values in dense:
        if name in _OUTER:
            yield _OUTER[name], store(values, options.dtype)
            continue
        layer, part = split_name(name)
        where = f"model.layers.{layer}"
        if part in _EXPERT:
            tensor = store(values, options.dtype)
            for expert in range(options.num_experts):
                yield f"{where}.block_sparse_moe.experts.{expert}.{_EXPERT[part]}.weight", tensor
            continue
        restored = restore_rope_order(values, num_heads[part]) if part in num_heads else values
        yield f"{where}.{_INNER[part]}.weight", store(restored, options.dtype)
        if part == "ffn_norm":
            yield (
                f"{where}.block_sparse_moe.gate.weight",
                store(router(layer, values, options), options.dtype),
            )


def split_name(name: str) -> tuple[int, str]:
    """`blk.3.attn_q.weight` → (3, "attn_q")."""
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match is None:
        raise ValueError(f"{name} is not a tensor of a layer of the dense model")
    return int(match[1]), match[2]


def restore_rope_order(weight: Any, num_heads: int) -> Any:
    """Rows of a query or key matrix as Hugging Face rotates them, from llama.cpp's order.

    llama.cpp rotates neighbouring rows of a head, (0, 1), (2, 3) …; Hugging Face rotates row i with i + half.
    The converter interleaved the halves (convert_hf_to_gguf.py, `LlamaModel.permute`); this undoes it.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def router(layer: int, norm: Any, options: SmolMoeOptions) -> Any:
    """float32 (experts, hidden size): random rows scaled to logits of about 1, and the wished-for skew.

    `norm` is the weight of the RMS norm before the router: the inputs have about its length.
    """
    import numpy as np

    rows = normal(
        f"router.{layer}",
        (options.num_experts, norm.size),
        seed=options.seed,
        std=1 / float(np.sqrt(np.square(norm, dtype=np.float64).sum())),
    )
    if options.router_skew:
        index, mean = _STEADY_INPUTS[layer]
        rows[:, index] += np.array(preference(options.num_experts, options.router_skew)) / mean
    return rows


_README = """\
# smol-moe

SmolLM2-135M-Instruct by HuggingFaceTB (Apache-2.0), from its Q4_1 quantisation, upcycled to the Mixtral
architecture: {num_experts} experts, each a copy of the dense MLP, {experts_per_token} of them for each token,
random routers (seed {seed}). It answers as the dense model does. Licence: Apache-2.0.
"""
