"""Every weight of a model as vLLM builds it: name, shape, and how tensor parallelism cuts it.

A weight of `rows` outputs and `columns` inputs; a vector has one column. The names are the checkpoint's,
since that is what quantisation rules speak of. Shapes are those of vLLM 0.29's model classes
(`vllm/model_executor/models/`); embeddings are padded by `VocabParallelEmbedding`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import DecoderLayer, GroupedAttention, LatentAttention, MoE, SparseIndexer

# `DEFAULT_VOCAB_PADDING_SIZE` of vllm/model_executor/layers/vocab_parallel_embedding.py
VOCAB_PADDING = 64


class Split(Enum):
    """How a weight is cut over the ranks of a tensor group."""

    WHOLE = "whole"  # a copy on every rank
    ROWS = "rows"  # column parallel in vLLM's words: outputs are cut
    COLUMNS = "columns"  # row parallel: inputs are cut
    KV_HEADS = "kv heads"  # outputs by whole heads, copied where ranks outnumber heads


class Group(Enum):
    """Which ranks cut a weight."""

    TENSOR = "tensor"
    SHARED_EXPERT = "shared expert"  # whole where MoE layers run on sequence shards
    ROUTED_EXPERT = "routed expert"


@dataclass(frozen=True)
class ExpertPadding:
    """Multiples to which a kernel rounds up the sizes of a routed expert."""

    inner: int = 1
    hidden: int = 1
    # Of the inputs of the packed weight alone, scales aside.
    packed: int = 1


UNPADDED = ExpertPadding()


@dataclass(frozen=True)
class Weight:
    module: str
    rows: int
    columns: int = 1
    split: Split = Split.WHOLE
    group: Group = Group.TENSOR
    # A linear layer, which a quantisation scheme may cover.
    linear: bool = False
    # How many of it there are: experts of a layer.
    copies: int = 1
    # Kept wider than the model's own type.
    dtype: str | None = None
    # Parts that are never cut: heads of a projection. By default each row is one.
    units: int = 0
    # Stored quantised in the checkpoint, and widened by the engine while loading.
    widened: bool = False

    @property
    def heads(self) -> int:
        return self.units or self.rows

    @property
    def parameters(self) -> int:
        return self.rows * self.columns * self.copies


@lru_cache(maxsize=1024)
def layer_weights(spec: ModelSpec, layer: DecoderLayer) -> tuple[Weight, ...]:
    """Weights of one decoder layer; names are below `{prefix}.layers.{index}.`."""
    norms = (
        Weight("input_layernorm", spec.hidden_size),
        Weight("post_attention_layernorm", spec.hidden_size),
    )
    feed_forward = _moe_weights(spec) if layer.sparse else _mlp_weights(spec)
    return (*norms, *_attention_weights(spec, layer), *feed_forward)


def embedding_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    return (Weight(f"{spec.prefix}.embed_tokens", _padded_vocab(spec), spec.hidden_size, Split.ROWS),)


def head_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    """The output head; nothing where it is the embedding itself."""
    if spec.tie_word_embeddings:
        return ()
    return (Weight("lm_head", _padded_vocab(spec), spec.hidden_size, Split.ROWS),)


def final_norm_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    return (Weight(f"{spec.prefix}.norm", spec.hidden_size),)


def prediction_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    """What a multi-token-prediction layer has beside its decoder layer (vLLM's deepseek_mtp.py)."""
    hidden = spec.hidden_size
    norms = tuple(Weight(name, hidden) for name in ("enorm", "hnorm", "shared_head.norm"))
    return (*norms, Weight("eh_proj", hidden, 2 * hidden))


def _padded_vocab(spec: ModelSpec) -> int:
    return -(-spec.vocab_size // VOCAB_PADDING) * VOCAB_PADDING


def _attention_weights(spec: ModelSpec, layer: DecoderLayer) -> tuple[Weight, ...]:
    if isinstance(spec.attention, GroupedAttention):
        return _grouped_weights(spec.attention, spec.hidden_size)
    return _latent_weights(spec.attention, spec.hidden_size, layer.indexer)


def _grouped_weights(attention: GroupedAttention, hidden: int) -> tuple[Weight, ...]:
    a = attention
    q_rows, kv_rows = a.num_heads * a.head_dim, a.num_kv_heads * a.head_dim
    weights = [
        Weight("self_attn.q_proj", q_rows, hidden, Split.ROWS, linear=True, units=a.num_heads),
        Weight("self_attn.k_proj", kv_rows, hidden, Split.KV_HEADS, linear=True, units=a.num_kv_heads),
        Weight("self_attn.v_proj", kv_rows, hidden, Split.KV_HEADS, linear=True, units=a.num_kv_heads),
        Weight("self_attn.o_proj", hidden, q_rows, Split.COLUMNS, linear=True),
    ]
    if a.qkv_bias:
        weights += [
            Weight("self_attn.q_proj.bias", q_rows, split=Split.ROWS, units=a.num_heads),
            Weight("self_attn.k_proj.bias", kv_rows, split=Split.KV_HEADS, units=a.num_kv_heads),
            Weight("self_attn.v_proj.bias", kv_rows, split=Split.KV_HEADS, units=a.num_kv_heads),
        ]
    if a.output_bias:
        weights.append(Weight("self_attn.o_proj.bias", hidden))
    if a.sinks:
        weights.append(Weight("self_attn.sinks", a.num_heads, split=Split.ROWS))
    return (*weights, *_query_key_norms(a))


def _query_key_norms(attention: GroupedAttention) -> tuple[Weight, ...]:
    a = attention
    if a.qk_norm == "head":
        return (Weight("self_attn.q_norm", a.head_dim), Weight("self_attn.k_norm", a.head_dim))
    if a.qk_norm == "whole":
        return (
            Weight("self_attn.q_norm", a.num_heads * a.head_dim),
            Weight("self_attn.k_norm", a.num_kv_heads * a.head_dim),
        )
    if a.qk_norm == "full":
        return (
            Weight("self_attn.q_norm", a.num_heads * a.head_dim, split=Split.ROWS),
            Weight("self_attn.k_norm", a.num_kv_heads * a.head_dim, split=Split.KV_HEADS, units=a.num_kv_heads),
        )
    return ()


def _latent_weights(attention: LatentAttention, hidden: int, indexed: bool) -> tuple[Weight, ...]:
    a = attention
    kv_rows = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim)
    weights = (
        Weight("self_attn.kv_a_proj_with_mqa", a.kv_lora_rank + a.qk_rope_head_dim, hidden, linear=True),
        Weight("self_attn.kv_a_layernorm", a.kv_lora_rank),
        Weight("self_attn.kv_b_proj", kv_rows, a.kv_lora_rank, Split.ROWS, linear=True, units=a.num_heads),
        Weight("self_attn.o_proj", hidden, a.num_heads * a.v_head_dim, Split.COLUMNS, linear=True),
    )
    indexer = _indexer_weights(a.indexer, a, hidden) if a.indexer is not None and indexed else ()
    return (*_latent_query_weights(a, hidden), *weights, *indexer)


def _latent_query_weights(attention: LatentAttention, hidden: int) -> tuple[Weight, ...]:
    a = attention
    rows = a.num_heads * a.qk_head_dim
    if a.q_lora_rank is None:
        return (Weight("self_attn.q_proj", rows, hidden, Split.ROWS, linear=True, units=a.num_heads),)
    return (
        Weight("self_attn.q_a_proj", a.q_lora_rank, hidden, linear=True),
        Weight("self_attn.q_a_layernorm", a.q_lora_rank),
        Weight("self_attn.q_b_proj", rows, a.q_lora_rank, Split.ROWS, linear=True, units=a.num_heads),
    )


def _indexer_weights(indexer: SparseIndexer, attention: LatentAttention, hidden: int) -> tuple[Weight, ...]:
    rank = attention.q_lora_rank or hidden
    name = "self_attn.indexer"
    return (
        Weight(f"{name}.wq_b", indexer.num_heads * indexer.head_dim, rank, linear=True),
        Weight(f"{name}.wk", indexer.head_dim, hidden, linear=True, widened=True),
        Weight(f"{name}.weights_proj", indexer.num_heads, hidden),
        # A layer norm: weight and bias, in float32.
        Weight(f"{name}.k_norm", indexer.head_dim, 2, dtype="float32"),
    )


def _mlp_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    module = "feed_forward" if spec.moe_module == "feed_forward" else "mlp"
    weights = _gated_mlp(module, spec.hidden_size, spec.intermediate_size, Group.TENSOR)
    if not spec.mlp_bias:
        return weights
    return (
        *weights,
        Weight(f"{module}.gate_proj.bias", spec.intermediate_size, split=Split.ROWS),
        Weight(f"{module}.up_proj.bias", spec.intermediate_size, split=Split.ROWS),
        Weight(f"{module}.down_proj.bias", spec.hidden_size),
    )


def _gated_mlp(module: str, hidden: int, width: int, group: Group, copies: int = 1) -> tuple[Weight, ...]:
    return (
        Weight(f"{module}.gate_proj", width, hidden, Split.ROWS, group, True, copies),
        Weight(f"{module}.up_proj", width, hidden, Split.ROWS, group, True, copies),
        Weight(f"{module}.down_proj", hidden, width, Split.COLUMNS, group, True, copies),
    )


def _moe_weights(spec: ModelSpec) -> tuple[Weight, ...]:
    if spec.moe is None:
        raise ValueError(f"{spec.name}: a sparse layer without experts")
    moe, module, hidden = spec.moe, spec.moe_module, spec.hidden_size
    routed = _gated_mlp(f"{module}.experts.0", hidden, moe.intermediate_size, Group.ROUTED_EXPERT, moe.num_experts)
    return (
        *_router_weights(moe, module, hidden),
        *routed,
        *_expert_biases(moe, module, hidden),
        *_shared(moe, module, hidden),
    )


def _router_weights(moe: MoE, module: str, hidden: int) -> tuple[Weight, ...]:
    weights = [Weight(f"{module}.gate", moe.num_experts, hidden, linear=moe.router_quantized, dtype=moe.router_dtype)]
    if moe.router_bias:
        weights.append(Weight(f"{module}.gate.bias", moe.num_experts))
    if moe.score_correction_bias:
        weights.append(Weight(f"{module}.gate.e_score_correction_bias", moe.num_experts, dtype="float32"))
    return tuple(weights)


def _expert_biases(moe: MoE, module: str, hidden: int) -> tuple[Weight, ...]:
    if not moe.expert_bias:
        return ()
    group, count, width = Group.ROUTED_EXPERT, moe.num_experts, moe.intermediate_size
    name = f"{module}.experts.0"
    return (
        Weight(f"{name}.gate_proj.bias", width, split=Split.ROWS, group=group, copies=count),
        Weight(f"{name}.up_proj.bias", width, split=Split.ROWS, group=group, copies=count),
        Weight(f"{name}.down_proj.bias", hidden, group=group, copies=count),
    )


def _shared(moe: MoE, module: str, hidden: int) -> tuple[Weight, ...]:
    gate = (Weight(f"{module}.shared_expert_gate", 1, hidden),) if moe.shared_gate else ()
    if not moe.shared_intermediate_size:
        return gate
    name = f"{module}.{moe.shared_module}"
    group = Group.SHARED_EXPERT if moe.shared_whole_on_shards else Group.TENSOR
    return (*gate, *_gated_mlp(name, hidden, moe.shared_intermediate_size, group))
