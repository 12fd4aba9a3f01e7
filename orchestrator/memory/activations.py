"""Peak of the forward pass that the engine profiles with its largest batch, and of the logits after it.

The shapes follow vLLM 0.29: `profile_run` of vllm/v1/worker/gpu/model_runner.py runs `max_num_batched_tokens`
tokens, and the logits of `max_num_seqs` sequences where the stage has the head. Kernels reuse memory in ways
not modelled here; what is counted is the widest layer with its inputs and outputs alive.
"""

from __future__ import annotations

from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import GroupedAttention, LatentAttention, MoE
from orchestrator.memory.engine_args import DTYPE_BYTES, ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import Cut, layer_scheme
from orchestrator.units import MIB

# `determine_chunked_prefill_workspace_size` of vllm/model_executor/layers/attention/mla_attention.py
LATENT_PREFILL_TOKENS = 64 * 1024
# VLLM_SPARSE_INDEXER_MAX_LOGITS_MB of vllm/envs.py
INDEXER_LOGITS_BYTES = 512 * MIB
# `get_max_prefill_buffer_size` of vllm/v1/attention/backends/mla/indexer.py: entries per token of the longest
# context, of 128 FP8 values and a float32 scale.
INDEXER_BUFFER_FACTOR = 40
INDEXER_ENTRY_BYTES = 132
# Residual stream and the layer's own input.
RESIDENT_HIDDEN_STATES = 2


@lru_cache(maxsize=65536)
def activation_bytes(spec: ModelSpec, layout: Layout, layers: tuple[int, int], cut: Cut, args: ResolvedArgs) -> int:
    """Bytes on one rank of the stage that holds the layers [first, end)."""
    forward = _forward_bytes(spec, layout, layers, cut, args)
    if layers[1] < spec.num_layers:
        return forward
    return max(forward, _logits_bytes(spec, layout, args) + _workspace_bytes(spec, layout, layers, cut, args))


def _forward_bytes(spec: ModelSpec, layout: Layout, layers: tuple[int, int], cut: Cut, args: ResolvedArgs) -> int:
    """Hidden states, and the larger of attention and feed-forward; expert workspaces stay in between."""
    value_bytes = DTYPE_BYTES[args.dtype]
    tokens = args.max_num_batched_tokens
    stage = spec.layers[layers[0] : layers[1]]
    resident = RESIDENT_HIDDEN_STATES * tokens * spec.hidden_size * value_bytes
    widest = _attention_bytes(spec, cut, args)
    if any(not layer.sparse for layer in stage):
        widest = max(widest, 3 * tokens * (spec.intermediate_size // cut.tensor) * value_bytes)
    if spec.moe is not None and any(layer.sparse for layer in stage):
        widest = max(widest, _moe_bytes(spec, spec.moe, layout, cut, args))
    return resident + widest + _workspace_bytes(spec, layout, layers, cut, args)


def _attention_bytes(spec: ModelSpec, cut: Cut, args: ResolvedArgs) -> int:
    """Queries, keys, values and the output; for MLA also the widened context of a chunked prefill."""
    attention, value_bytes = spec.attention, DTYPE_BYTES[args.dtype]
    heads = attention.num_heads // cut.tensor
    if isinstance(attention, GroupedAttention):
        kv_heads = max(1, attention.num_kv_heads // cut.tensor)
        features = 2 * (heads + kv_heads) * attention.head_dim
        return args.max_num_batched_tokens * (features + spec.hidden_size) * value_bytes
    features = heads * (attention.qk_head_dim + attention.v_head_dim) + spec.hidden_size
    own = args.max_num_batched_tokens * features * value_bytes
    return own + _latent_context_bytes(attention, heads, args)


def _latent_context_bytes(attention: LatentAttention, heads: int, args: ResolvedArgs) -> int:
    """The engine's profile reserves whichever its kind of MLA will need most."""
    if attention.indexer is not None:
        return INDEXER_LOGITS_BYTES
    wanted = max(8 * args.max_model_len, 4 * args.max_num_seqs * args.block_size)
    features = heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    return min(wanted, LATENT_PREFILL_TOKENS) * features * DTYPE_BYTES[args.dtype]


def _moe_bytes(spec: ModelSpec, moe: MoE, layout: Layout, cut: Cut, args: ResolvedArgs) -> int:
    """Router logits in float32, shared experts, and the gathered tokens of all data ranks."""
    value_bytes, tokens = DTYPE_BYTES[args.dtype], args.max_num_batched_tokens
    router = tokens * moe.num_experts * 4
    shared = 3 * tokens * (moe.shared_intermediate_size // cut.shared_expert) * value_bytes
    gathered = layout.data * tokens * spec.hidden_size * value_bytes
    return router + shared + gathered


def _workspace_bytes(spec: ModelSpec, layout: Layout, layers: tuple[int, int], cut: Cut, args: ResolvedArgs) -> int:
    """Scratch memory that the engine keeps once it has grown: experts' inputs and outputs, gathered keys.

    `workspace_shapes` of vllm/model_executor/layers/fused_moe/experts/; one buffer serves all layers.
    """
    workspaces = [_gathered_keys_bytes(spec, args)]
    if spec.moe is not None and any(layer.sparse for layer in spec.layers[layers[0] : layers[1]]):
        workspaces.append(_expert_workspace_bytes(spec, spec.moe, layout, cut, args))
    return max(workspaces)


def _expert_workspace_bytes(spec: ModelSpec, moe: MoE, layout: Layout, cut: Cut, args: ResolvedArgs) -> int:
    """Two buffers with a row for every token's every expert, of tokens gathered over data ranks."""
    rows = layout.data * args.max_num_batched_tokens * moe.top_k
    inner = moe.intermediate_size // cut.expert_tensor
    first, second = max(inner, spec.hidden_size), max(2 * inner, spec.hidden_size)
    if _is_four_bit(spec, args):
        # Marlin's second buffer holds the activations alone.
        first, second = second, inner
    return rows * (first + second) * DTYPE_BYTES[args.dtype]


def _is_four_bit(spec: ModelSpec, args: ResolvedArgs) -> bool:
    if args.quantization is None:
        return False
    sparse = next(index for index, layer in enumerate(spec.layers) if layer.sparse)
    scheme = layer_scheme(spec, args.quantization, sparse, f"{spec.moe_module}.experts.0.gate_proj")
    return scheme is not None and scheme.weight_bits == 4


def _gathered_keys_bytes(spec: ModelSpec, args: ResolvedArgs) -> int:
    attention = spec.attention
    if not isinstance(attention, LatentAttention) or attention.indexer is None:
        return 0
    return INDEXER_BUFFER_FACTOR * args.max_model_len * INDEXER_ENTRY_BYTES


def _logits_bytes(spec: ModelSpec, layout: Layout, args: ResolvedArgs) -> int:
    """Logits over the whole vocabulary on every rank; gathering them from a group takes them twice."""
    sequences = min(args.max_num_seqs, args.max_num_batched_tokens)
    copies = 2 if layout.tensor > 1 else 1
    hidden = args.max_num_batched_tokens * spec.hidden_size
    return (sequences * spec.vocab_size * copies + hidden) * DTYPE_BYTES[args.dtype]
