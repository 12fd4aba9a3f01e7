"""The shapes of each architecture, read from Hugging Face's keys.

Each reader states one of vLLM 0.29's model classes (`vllm/model_executor/models/`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.catalog.fields import Fields
from orchestrator.catalog.shapes import (
    Body,
    DecoderLayer,
    GroupedAttention,
    LatentAttention,
    MoE,
    SparseIndexer,
)
from orchestrator.errors import ConfigError

Reader = Callable[[Fields], Body]


def _llama(text: Fields) -> Body:
    bias = text.flag("attention_bias", text.flag("bias", False))
    heads = text.size("num_attention_heads")
    attention = _grouped(text, kv_heads=heads, qkv_bias=text.flag("qkv_bias", bias), output_bias=bias)
    return _dense(text, attention, mlp_bias=text.flag("mlp_bias", False))


def _qwen2(text: Fields) -> Body:
    return _dense(text, _grouped(text, qkv_bias=True))


def _qwen3(text: Fields) -> Body:
    return _dense(text, _grouped(text, qkv_bias=text.flag("attention_bias", False), qk_norm="head"))


def _mixtral(text: Fields) -> Body:
    moe = MoE(
        num_experts=text.count("num_local_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=text.size("intermediate_size"),
    )
    return Body(
        attention=_grouped(text),
        layers=(DecoderLayer(sparse=True, window=_window(text)),) * _depth(text),
        intermediate_size=0,
        moe=moe,
        ends_on_every_stage=True,
        moe_module="block_sparse_moe",
    )


def _olmoe(text: Fields) -> Body:
    moe = MoE(
        num_experts=text.count("num_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=text.size("intermediate_size"),
    )
    return Body(
        attention=_grouped(text, kv_heads=text.size("num_attention_heads"), qk_norm="whole"),
        layers=(DecoderLayer(sparse=True),) * _depth(text),
        intermediate_size=0,
        moe=moe,
        ends_on_every_stage=True,
    )


def _qwen2_moe(text: Fields) -> Body:
    attention = _grouped(text, qkv_bias=True)
    return _qwen_moe(text, attention, shared_gate=True)


def _qwen3_moe(text: Fields) -> Body:
    attention = _grouped(text, qkv_bias=text.flag("attention_bias", False), qk_norm="head")
    shared = text.size("shared_expert_intermediate_size", default=0, minimum=0)
    return _qwen_moe(text, attention, shared_gate=shared > 0, router_quantized=True)


def _qwen_moe(text: Fields, attention: GroupedAttention, shared_gate: bool, router_quantized: bool = False) -> Body:
    step = text.size("decoder_sparse_step", default=1)
    dense = text.items("mlp_only_layers")
    moe = MoE(
        num_experts=text.count("num_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=text.size("moe_intermediate_size"),
        shared_intermediate_size=text.size("shared_expert_intermediate_size", default=0, minimum=0),
        shared_gate=shared_gate,
        router_quantized=router_quantized,
        shared_module="shared_expert",
    )
    sparse = [i not in dense and (i + 1) % step == 0 for i in range(_depth(text))]
    return Body(
        attention=attention,
        layers=_layers(sparse),
        intermediate_size=text.size("intermediate_size"),
        moe=moe,
        ends_on_every_stage=True,
    )


def _deepseek(text: Fields) -> Body:
    depth = _depth(text)
    first, step = text.size("first_k_dense_replace", minimum=0), text.size("moe_layer_freq", default=1)
    sparse = [text.has("n_routed_experts") and i >= first and i % step == 0 for i in range(depth)]
    attention = _latent(text)
    indexed = _indexed(text, depth) if text.has("index_topk") else [False] * depth
    return Body(
        attention=attention,
        layers=tuple(DecoderLayer(sparse=s, indexer=i) for s, i in zip(sparse, indexed, strict=True)),
        intermediate_size=text.size("intermediate_size"),
        moe=_deepseek_moe(text) if any(sparse) else None,
        num_mtp_layers=text.size("num_nextn_predict_layers", default=0, minimum=0),
    )


def _glm4_moe_lite(text: Fields) -> Body:
    """DeepSeek's attention before GLM's mixture."""
    body = _deepseek(text)
    return replace(body, moe=_glm4_mixture(text) if body.moe is not None else None)


def _indexed(text: Fields, depth: int) -> list[bool]:
    """Layers that choose tokens themselves; others take over the choice of a layer before."""
    pattern = text.text("index_topk_pattern", default="")
    if pattern:
        return [i >= len(pattern) or pattern[i] != "S" for i in range(depth)]
    every = text.size("index_topk_freq", default=1)
    offset = text.size("index_skip_topk_offset", default=2, minimum=0)
    return [max(i - offset + 1, 0) % every == 0 for i in range(depth)]


def _deepseek_moe(text: Fields) -> MoE:
    width = text.size("moe_intermediate_size")
    return MoE(
        num_experts=text.count("n_routed_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=width,
        shared_intermediate_size=width * text.stated_size("n_shared_experts"),
        shared_whole_on_shards=True,
        score_correction_bias=text.text("topk_method", default="") == "noaux_tc",
        num_groups=text.size("n_group", default=1),
    )


def _latent(text: Fields) -> LatentAttention:
    indexer = None
    if text.has("index_topk"):
        indexer = SparseIndexer(text.size("index_n_heads"), text.size("index_head_dim"), text.size("index_topk"))
    return LatentAttention(
        num_heads=text.size("num_attention_heads"),
        q_lora_rank=text.optional_size("q_lora_rank"),
        kv_lora_rank=text.size("kv_lora_rank"),
        qk_nope_head_dim=text.size("qk_nope_head_dim"),
        qk_rope_head_dim=text.size("qk_rope_head_dim"),
        v_head_dim=text.size("v_head_dim"),
        indexer=indexer,
    )


def _glm4_moe(text: Fields) -> Body:
    norm = "head" if text.flag("use_qk_norm", False) else "none"
    attention = _grouped(text, 0.5, qkv_bias=text.flag("attention_bias", False), qk_norm=norm)
    first = text.size("first_k_dense_replace", minimum=0)
    return Body(
        attention=attention,
        layers=_layers([i >= first for i in range(_depth(text))]),
        intermediate_size=text.size("intermediate_size"),
        moe=_glm4_mixture(text),
        num_mtp_layers=text.size("num_nextn_predict_layers", default=0, minimum=0),
    )


def _glm4_mixture(text: Fields) -> MoE:
    return MoE(
        num_experts=text.count("n_routed_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=text.size("moe_intermediate_size"),
        shared_intermediate_size=text.size("moe_intermediate_size") * text.stated_size("n_shared_experts"),
        score_correction_bias=True,
        num_groups=text.size("n_group", default=1),
        router_dtype="float32",
    )


def _minimax_m2(text: Fields) -> Body:
    attention = _grouped(text, qkv_bias=text.flag("attention_bias", False), qk_norm="full")
    moe = MoE(
        num_experts=text.count("num_local_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=text.size("intermediate_size"),
        score_correction_bias=text.flag("use_routing_bias", False),
        router_dtype="float32",
    )
    return Body(
        attention=attention,
        layers=(DecoderLayer(sparse=True),) * _depth(text),
        intermediate_size=0,
        moe=moe,
        moe_module="block_sparse_moe",
    )


def _gpt_oss(text: Fields) -> Body:
    window = text.size("sliding_window")
    moe = MoE(
        num_experts=text.count("num_local_experts"),
        top_k=text.size("num_experts_per_tok", "experts_per_token"),
        intermediate_size=text.size("intermediate_size"),
        expert_bias=True,
        router_bias=True,
    )
    # Every other layer slides, whatever `layer_types` says: so vLLM's OAIAttention builds it.
    layers = tuple(DecoderLayer(sparse=True, window=None if i % 2 else window) for i in range(_depth(text)))
    return Body(
        attention=_grouped(text, qkv_bias=True, output_bias=True, sinks=True, rotary_dtype="float32"),
        layers=layers,
        intermediate_size=0,
        moe=moe,
        ends_on_every_stage=True,
    )


def _llama4(text: Fields) -> Body:
    depth = _depth(text)
    step, chunk = (
        text.size("interleave_moe_layer_step", default=1, minimum=0),
        text.optional_size("attention_chunk_size"),
    )
    width = text.size("intermediate_size")
    # 0 marks a layer without rotary position, which sees the whole context; by default every fourth.
    roped = text.items("no_rope_layers") or tuple(int((i + 1) % 4 != 0) for i in range(depth))
    if len(roped) != depth:
        raise ConfigError(f"{text.source}: no_rope_layers names {len(roped)} layers; num_hidden_layers is {depth}")
    layers = tuple(
        DecoderLayer(
            sparse=step > 0 and (i + 1) % step == 0,
            window=chunk if roped[i] else None,
            chunked=bool(roped[i] and chunk),
        )
        for i in range(depth)
    )
    moe = MoE(
        num_experts=text.count("num_local_experts"),
        top_k=text.size("num_experts_per_tok"),
        intermediate_size=width,
        shared_intermediate_size=width,
        shared_module="shared_expert",
        shared_whole_on_shards=True,
    )
    return Body(
        attention=_grouped(text),
        layers=layers,
        intermediate_size=text.size("intermediate_size_mlp"),
        moe=moe,
        moe_module="feed_forward",
    )


def _grouped(
    text: Fields, rotary_share: float = 1.0, kv_heads: int | None = None, **traits: object
) -> GroupedAttention:
    """Heads of the usual keys. `kv_heads` is the class's own default, where it has one that is safe."""
    heads = text.size("num_attention_heads")
    head_dim = text.optional_size("head_dim") or text.size("hidden_size") // heads
    if head_dim < 1:
        raise ConfigError(f"{text.source}: num_attention_heads is {heads}, more than hidden_size")
    rotary = int(head_dim * text.number("partial_rotary_factor", rotary_share))
    return GroupedAttention(
        num_heads=heads,
        num_kv_heads=text.size("num_key_value_heads", default=kv_heads),
        head_dim=head_dim,
        rotary_dim=text.size("rotary_dim", default=rotary),
        **traits,  # type: ignore[arg-type]
    )


def _dense(text: Fields, attention: GroupedAttention, mlp_bias: bool = False) -> Body:
    layers = tuple(DecoderLayer(sparse=False, window=w) for w in _windows(text))
    return Body(attention, layers, text.size("intermediate_size"), mlp_bias=mlp_bias)


def _windows(text: Fields) -> list[int | None]:
    """Sliding windows of a dense model: by `layer_types`, else the same on every layer."""
    depth, window = _depth(text), _window(text)
    kinds = text.items("layer_types")
    if kinds and len(kinds) != depth:
        raise ConfigError(f"{text.source}: layer_types names {len(kinds)} layers; num_hidden_layers is {depth}")
    unknown = next((kind for kind in kinds if kind not in ("full_attention", "sliding_attention")), None)
    if unknown is not None:
        raise ConfigError(f"{text.source}: layer_types has {unknown!r}; known are full_attention and sliding_attention")
    if kinds:
        return [window if kind == "sliding_attention" else None for kind in kinds]
    return [window] * depth


def _window(text: Fields) -> int | None:
    """The window of a whole model; 0 switches it off, as does `use_sliding_window` where Qwen has it."""
    if not text.flag("use_sliding_window", not text.text("model_type", default="").startswith("qwen")):
        return None
    return text.size("sliding_window", default=0, minimum=0) or None


def _layers(sparse: Sequence[bool]) -> tuple[DecoderLayer, ...]:
    return tuple(DecoderLayer(sparse=s) for s in sparse)


def _depth(text: Fields) -> int:
    return text.count("num_hidden_layers")


READERS: dict[str, Reader] = {
    "LlamaForCausalLM": _llama,
    "InternLM3ForCausalLM": _llama,
    "Phi3ForCausalLM": _llama,
    "MistralForCausalLM": _llama,
    "Ministral3ForCausalLM": _llama,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "MixtralForCausalLM": _mixtral,
    "GraniteMoeForCausalLM": _mixtral,
    "OlmoeForCausalLM": _olmoe,
    "Qwen2MoeForCausalLM": _qwen2_moe,
    "Qwen3MoeForCausalLM": _qwen3_moe,
    "DeepseekV2ForCausalLM": _deepseek,
    "DeepseekV3ForCausalLM": _deepseek,
    "DeepseekV32ForCausalLM": _deepseek,
    "GlmMoeDsaForCausalLM": _deepseek,
    "KimiK25ForConditionalGeneration": _deepseek,
    "Glm4MoeForCausalLM": _glm4_moe,
    "Glm4MoeLiteForCausalLM": _glm4_moe_lite,
    "MiniMaxM2ForCausalLM": _minimax_m2,
    "GptOssForCausalLM": _gpt_oss,
    "Llama4ForCausalLM": _llama4,
    "Llama4ForConditionalGeneration": _llama4,
}
