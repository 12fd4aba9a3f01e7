"""Random configurations of known architectures that vLLM would accept, each with a layout and a rank."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from orchestrator.memory.layout import Layout
from tests.engine.meta_model import Rank

# Keys that a mutation may set, with what they may become. Sizes divide by 8, so that layouts stay legal.
CHOICES: Mapping[str, tuple[int, ...]] = {
    "hidden_size": (512, 768, 1024, 2048, 3072),
    "intermediate_size": (640, 1024, 1792, 4096),
    "intermediate_size_mlp": (1024, 2560),
    "moe_intermediate_size": (128, 384, 512, 1024),
    "shared_expert_intermediate_size": (256, 1280),
    "num_hidden_layers": (6, 7, 9, 11),
    "vocab_size": (1000, 32000, 50257, 151936),
    "num_experts": (8, 16, 24),
    "num_local_experts": (8, 16, 24),
    "n_routed_experts": (8, 16, 24),
    "n_shared_experts": (1, 2, 3),
    "first_k_dense_replace": (0, 1, 2),
    "decoder_sparse_step": (1, 2),
    "interleave_moe_layer_step": (1, 2, 3),
    "index_n_heads": (8, 32),
    "q_lora_rank": (256, 768),
}
BOOLEANS = ("attention_bias", "tie_word_embeddings", "mlp_bias", "use_qk_norm", "use_routing_bias")
# Classes whose weights have no say in it: tying is not built there.
UNTIED = ("deepseek", "kimi", "glm4", "minimax", "gpt_oss", "llama4")
# Classes that can hold redundant copies of experts.
BALANCED = ("mixtral", "qwen3_moe", "deepseek", "kimi", "glm4", "llama4")
HEADS = ((8, 8), (16, 4), (16, 8), (24, 8), (32, 2))


def mutate(config: dict[str, Any], chance: random.Random) -> tuple[dict[str, Any], Layout, Rank]:
    text = config.get("text_config", config)
    for key, values in CHOICES.items():
        if isinstance(text.get(key), int) and chance.random() < 0.7:
            text[key] = chance.choice(values)
    _mutate_booleans(text, chance)
    _mutate_heads(text, chance)
    text["num_experts_per_tok"] = 2
    if "n_group" in text:
        text["n_group"] = text["topk_group"] = 1
    if "layer_types" in text:
        text["layer_types"] = ["sliding_attention", "full_attention"] * text["num_hidden_layers"]
        text["layer_types"] = text["layer_types"][: text["num_hidden_layers"]]
    layout = _layout(chance, _is_moe(text), _is_balanced(text))
    return config, layout, _rank(layout, chance)


def _mutate_booleans(text: dict[str, Any], chance: random.Random) -> None:
    for key in BOOLEANS:
        if isinstance(text.get(key), bool):
            text[key] = chance.random() < 0.5
    if str(text.get("model_type", "")).startswith(UNTIED):
        text["tie_word_embeddings"] = False
    if text.get("model_type") in ("llama4_text", "gpt_oss"):
        text["attention_bias"] = text["model_type"] == "gpt_oss"


def _mutate_heads(text: dict[str, Any], chance: random.Random) -> None:
    heads, kv_heads = chance.choice(HEADS)
    if "kv_lora_rank" in text:
        text["num_attention_heads"] = text["num_key_value_heads"] = heads
        return
    text["num_attention_heads"], text["num_key_value_heads"] = heads, kv_heads
    if "head_dim" in text:
        text["head_dim"] = chance.choice((64, 128))
    else:
        text["hidden_size"] = heads * chance.choice((64, 128))
    if "rotary_dim" in text:
        text["rotary_dim"] = text["head_dim"] // 2


def _is_moe(text: Mapping[str, Any]) -> bool:
    return any(key in text for key in ("num_experts", "num_local_experts", "n_routed_experts"))


def _is_balanced(text: Mapping[str, Any]) -> bool:
    return str(text.get("model_type", "")).startswith(BALANCED)


def _layout(chance: random.Random, is_moe: bool, is_balanced: bool) -> Layout:
    tensor, pipeline, data = chance.choice(((1, 1, 1), (2, 1, 1), (4, 2, 1), (8, 1, 1), (2, 3, 1), (2, 2, 2)))
    expert = is_moe and tensor * data > 1 and chance.random() < 0.6
    balanced = expert and is_balanced and chance.random() < 0.5
    return Layout(tensor, pipeline, data, expert, redundant_experts=tensor * data if balanced else 0)


def _rank(layout: Layout, chance: random.Random) -> Rank:
    return Rank(chance.randrange(layout.pipeline), chance.randrange(layout.tensor), chance.randrange(layout.data))
