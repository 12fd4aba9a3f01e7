"""Tensors that the engine makes beside the weights while it loads them.

The engine logs them with the weights ("Model loading took"); a budget counts them as overhead.
"""

from __future__ import annotations

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import GroupedAttention, LatentAttention
from orchestrator.memory.engine_args import DTYPE_BYTES, ResolvedArgs
from orchestrator.memory.shards import Cut, layer_scheme


def buffer_bytes(spec: ModelSpec, args: ResolvedArgs, layers: tuple[int, int], cut: Cut) -> int:
    """Bytes on one rank of the stage that holds the layers [first, end)."""
    return rotary_bytes(spec, args) + _latent_copies_bytes(spec, args, layers, cut) + _top_k_bytes(spec, args)


def rotary_bytes(spec: ModelSpec, args: ResolvedArgs) -> int:
    """One table of cosines and sines for all layers, as long as the model's own longest context.

    `cos_sin_cache` of vllm/model_executor/layers/rotary_embedding/; the indexer's rotation has its own.
    """
    attention = spec.attention
    if isinstance(attention, GroupedAttention):
        value_bytes = DTYPE_BYTES[attention.rotary_dtype or args.dtype]
        return spec.max_model_len * attention.rotary_dim * value_bytes
    tables = 1 if attention.indexer is None else 2
    return tables * spec.max_model_len * attention.qk_rope_head_dim * DTYPE_BYTES[args.dtype]


def _latent_copies_bytes(spec: ModelSpec, args: ResolvedArgs, layers: tuple[int, int], cut: Cut) -> int:
    """MLA's absorbed projections, kept widened where `kv_b_proj` is stored quantised.

    `MLAAttention.process_weights_after_loading`; an unquantised projection is shared, not copied.
    """
    attention = spec.attention
    if not isinstance(attention, LatentAttention) or args.quantization is None:
        return 0
    heads = attention.num_heads // cut.tensor
    columns = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    copy_bytes = attention.kv_lora_rank * columns * DTYPE_BYTES[args.dtype]
    module = "self_attn.kv_b_proj"
    return copy_bytes * sum(
        layer_scheme(spec, args.quantization, index, module) is not None for index in range(*layers)
    )


def _top_k_bytes(spec: ModelSpec, args: ResolvedArgs) -> int:
    """The chosen tokens of sparse attention, one int32 each for every token of a batch."""
    attention = spec.attention
    if not isinstance(attention, LatentAttention) or attention.indexer is None:
        return 0
    return args.max_num_batched_tokens * attention.indexer.top_k * 4
