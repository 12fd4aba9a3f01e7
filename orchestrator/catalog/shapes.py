"""The parts a decoder is made of, as far as memory and layout are concerned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GroupedAttention:
    """Multi-head or grouped-query attention; `num_kv_heads == num_heads` is plain multi-head."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    output_bias: bool = False
    # "head": a weight per head dimension; "whole": one per query and key feature; both on every rank.
    # "full": one per query and key feature, cut like the projections.
    qk_norm: Literal["none", "head", "whole", "full"] = "none"
    sinks: bool = False
    # Features of a head that turn with position, and the type of the table of their angles.
    rotary_dim: int = 0
    rotary_dtype: str | None = None


@dataclass(frozen=True)
class SparseIndexer:
    """DeepSeek sparse attention's token selector, with a key cache of its own."""

    num_heads: int
    head_dim: int
    top_k: int


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one compressed key-value vector a token, shared by all heads."""

    num_heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    indexer: SparseIndexer | None = None

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


Attention = GroupedAttention | LatentAttention


@dataclass(frozen=True)
class MoE:
    """The mixture of a sparse layer: routed experts, shared experts and the router."""

    num_experts: int
    top_k: int
    intermediate_size: int
    shared_intermediate_size: int = 0
    shared_gate: bool = False
    expert_bias: bool = False
    router_bias: bool = False
    # A float32 number per expert that steers the choice and not the weight of an expert.
    score_correction_bias: bool = False
    num_groups: int = 1
    # Where the router is kept wider than the model.
    router_dtype: str | None = None
    # Whether the engine would quantise the router where it quantises while loading.
    router_quantized: bool = False
    shared_module: str = "shared_experts"
    # Whether shared experts stay whole where MoE layers run on sequence shards.
    shared_whole_on_shards: bool = False


@dataclass(frozen=True)
class DecoderLayer:
    """What differs from layer to layer."""

    sparse: bool
    # Tokens a layer looks back on; None is the whole context.
    window: int | None = None
    # A chunked window starts anew every `window` tokens instead of sliding.
    chunked: bool = False
    indexer: bool = False


@dataclass(frozen=True)
class VisionTower:
    """A vision encoder and its projector, built on every pipeline stage and kept unquantised."""

    # Parameters cut over the ranks of a tensor group, and parameters that each rank holds whole.
    split_parameters: int
    whole_parameters: int

    @property
    def parameters(self) -> int:
        return self.split_parameters + self.whole_parameters


@dataclass(frozen=True)
class Body:
    """What an architecture's own translator reads from a config; `ModelSpec` adds what all share."""

    attention: Attention
    layers: tuple[DecoderLayer, ...]
    # Width of a dense layer's MLP; 0 where there is none.
    intermediate_size: int
    moe: MoE | None = None
    mlp_bias: bool = False
    num_mtp_layers: int = 0
    # Some of vLLM's classes build embeddings, head and last norm on every pipeline stage.
    ends_on_every_stage: bool = False
    # What the checkpoint calls the parent of a decoder layer's modules.
    moe_module: str = "mlp"
