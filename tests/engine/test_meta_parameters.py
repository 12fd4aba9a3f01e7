"""The planner's arithmetic held to vLLM itself: parameters of every rank, exactly.

vLLM's model classes are built on the meta device, unquantised, with the process groups of one rank.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from orchestrator.catalog.gpus import cpu_device
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import LatentAttention
from orchestrator.memory.budget import rank_parameters
from orchestrator.memory.buffers import rotary_bytes
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.layout import Layout
from tests.engine.meta_model import Rank, build, parameters
from tests.engine.mutations import mutate

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIGS = resources.files("orchestrator.catalog").joinpath("data/configs")

# One published config for each of vLLM's model classes that the catalogue knows.
PUBLISHED = (
    "moonshotai--Kimi-K2-Instruct",
    "moonshotai--Kimi-K2.5",
    "deepseek-ai--DeepSeek-V3.2",
    "mistralai--Mixtral-8x22B-Instruct-v0.1",
    "Qwen--Qwen2-57B-A14B-Instruct",
    "Qwen--Qwen3-235B-A22B",
    "zai-org--GLM-4.5",
    "MiniMaxAI--MiniMax-M2.5",
    "openai--gpt-oss-120b",
    "meta-llama--Llama-4-Maverick-17B-128E-Instruct",
    "meta-llama--Meta-Llama-3-70B-Instruct",
)
LAYOUTS = (
    (Layout(), Rank()),
    (Layout(tensor=4, pipeline=2), Rank(stage=0)),
    (Layout(tensor=4, pipeline=2), Rank(stage=1, tensor_rank=3)),
    (Layout(tensor=4, expert=True), Rank(tensor_rank=2)),
    (Layout(tensor=2, pipeline=3, expert=True), Rank(stage=1)),
    (Layout(tensor=2, data=2), Rank(data_rank=1)),
    (Layout(tensor=2, data=2, expert=True), Rank(tensor_rank=1, data_rank=1)),
    (Layout(data=8, expert=True), Rank(data_rank=7)),
)
# Near relatives without a published config here: small sizes of their own.
SMALL = {"vocab_size": 50257, "num_hidden_layers": 7, "max_position_embeddings": 4096}
DENSE = {"hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16, "num_key_value_heads": 8}
RELATIVES: Mapping[str, Mapping[str, Any]] = {
    "MistralForCausalLM": {"model_type": "mistral", **DENSE, "head_dim": 128},
    "Qwen2ForCausalLM": {"model_type": "qwen2", **DENSE, "tie_word_embeddings": True},
    "Qwen3ForCausalLM": {"model_type": "qwen3", **DENSE, "head_dim": 128, "attention_bias": True},
    "Phi3ForCausalLM": {"model_type": "phi3", **DENSE, "pad_token_id": 0},
}
MIXED = {**DENSE, "num_experts_per_tok": 2, "norm_topk_prob": True}
MIXTURES: Mapping[str, Mapping[str, Any]] = {
    "GraniteMoeForCausalLM": {
        "model_type": "granitemoe",
        **MIXED,
        "num_local_experts": 8,
        "tie_word_embeddings": True,
    },
    "OlmoeForCausalLM": {"model_type": "olmoe", **MIXED, "num_experts": 16},
    "Glm4MoeLiteForCausalLM": {
        "model_type": "glm4_moe_lite",
        **MIXED,
        "n_routed_experts": 16,
        "n_shared_experts": 1,
        "moe_intermediate_size": 384,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": 256,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "num_key_value_heads": 16,
        "n_group": 1,
        "topk_group": 1,
    },
}
# Key-value heads fewer than ranks: each is copied.
WIDE = Layout(tensor=8)


def unquantised(name: str) -> dict[str, Any]:
    """A published config without its quantisation; Llama 4 by its text model alone, whose class needs no
    image libraries."""
    config: dict[str, Any] = json.loads(CONFIGS.joinpath(f"{name}.json").read_text("utf-8"))
    config.pop("quantization_config", None)
    text = config.get("text_config", {})
    text.pop("quantization_config", None)
    if config["architectures"] == ["Llama4ForConditionalGeneration"]:
        return {**text, "architectures": ["Llama4ForCausalLM"]}
    return config


def ours(config: Mapping[str, Any], layout: Layout, rank: Rank) -> int:
    spec = ModelSpec.from_hf(config, name="test", source="test")
    return rank_parameters(spec, layout, rank.stage, rank.tensor_rank, rank.data_rank)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_rank_holds_the_parameters_that_vllm_builds(name: str, tmp_path: Path) -> None:
    """For every architecture and layout the count of parameters per rank is exact."""
    config = unquantised(name)
    for layout, rank in LAYOUTS:
        if layout.expert and "Llama-3" in name:
            continue
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (layout, rank)


@pytest.mark.parametrize("architecture", RELATIVES)
def test_dense_relatives_are_counted_exactly(architecture: str, tmp_path: Path) -> None:
    """Llama's and Qwen's dense relatives follow from the same rules."""
    config = {"architectures": [architecture], **SMALL, **RELATIVES[architecture]}
    for layout, rank in LAYOUTS:
        if not layout.expert:
            assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (layout, rank)


@pytest.mark.parametrize("architecture", MIXTURES)
def test_related_mixtures_are_counted_exactly(architecture: str, tmp_path: Path) -> None:
    """Mixtures built from the same parts follow from the same rules."""
    config = {"architectures": [architecture], **SMALL, **MIXTURES[architecture]}
    for layout, rank in LAYOUTS:
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (layout, rank)


def test_latent_attention_without_query_compression_is_counted(tmp_path: Path) -> None:
    """DeepSeek V2 Lite projects queries in one step, and has no correction of the router."""
    config = {
        **unquantised("deepseek-ai--DeepSeek-V3"),
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "q_lora_rank": None,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "n_shared_experts": 2,
        "num_hidden_layers": 6,
    }
    for layout, rank in LAYOUTS:
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (layout, rank)


def test_layers_that_take_over_the_choice_of_tokens_have_no_indexer(tmp_path: Path) -> None:
    """With `index_topk_freq` only some layers of sparse attention hold an indexer."""
    config = {
        **unquantised("deepseek-ai--DeepSeek-V3.2"),
        "architectures": ["GlmMoeDsaForCausalLM"],
        "num_hidden_layers": 9,
        "index_topk_freq": 4,
    }
    for layout, rank in LAYOUTS[:3]:
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (layout, rank)


@pytest.mark.parametrize("name", ["Qwen--Qwen3-235B-A22B", "MiniMaxAI--MiniMax-M2.5"])
def test_key_value_heads_fewer_than_ranks_are_copied(name: str, tmp_path: Path) -> None:
    """Tensor 8 over 4 key-value heads keeps one whole head on each rank."""
    config = {**unquantised(name), "num_key_value_heads": 4}
    assert ours(config, WIDE, Rank()) == parameters(config, WIDE, Rank(), tmp_path)


@pytest.mark.parametrize("placement", ["linear", "round_robin"])
def test_uneven_experts_fall_to_the_first_ranks(placement: str, tmp_path: Path) -> None:
    """Experts that do not divide by the group leave the first ranks with one more."""
    config = {**unquantised("moonshotai--Kimi-K2-Instruct"), "n_routed_experts": 14, "num_hidden_layers": 4}
    layout = Layout(tensor=4, expert=True, expert_placement=placement)  # type: ignore[arg-type]
    for rank in (Rank(tensor_rank=0), Rank(tensor_rank=3)):
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path)


def test_a_custom_division_of_layers_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VLLM_PP_LAYER_PARTITION and `layers_per_stage` mean the same."""
    monkeypatch.setenv("VLLM_PP_LAYER_PARTITION", "4,2,3")
    config = {**unquantised("moonshotai--Kimi-K2-Instruct"), "num_hidden_layers": 9}
    layout = Layout(tensor=2, pipeline=3, layers_per_stage=(4, 2, 3))
    for stage in range(3):
        rank = Rank(stage=stage)
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path)


def test_tied_embeddings_are_held_by_the_first_and_last_stage(tmp_path: Path) -> None:
    """With tied embeddings the last stage keeps the embedding for its head."""
    config = {**unquantised("meta-llama--Meta-Llama-3-70B-Instruct"), "tie_word_embeddings": True}
    layout = Layout(tensor=2, pipeline=3)
    for stage in range(3):
        rank = Rank(stage=stage)
        assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path)


# Fifty configurations, spread evenly over the architectures.
MUTATED = [(seed, PUBLISHED[seed % len(PUBLISHED)]) for seed in range(50)]


@pytest.mark.parametrize(("seed", "name"), MUTATED)
def test_mutated_configurations_are_counted_exactly(seed: int, name: str, tmp_path: Path) -> None:
    """Random sizes of the same architectures, so that no table of known models could pass."""
    config, layout, rank = mutate(unquantised(name), random.Random(seed))  # noqa: S311
    assert ours(config, layout, rank) == parameters(config, layout, rank, tmp_path), (config, layout, rank)


@pytest.mark.parametrize("name", PUBLISHED)
def test_rotary_tables_have_the_size_that_vllm_makes(name: str, tmp_path: Path) -> None:
    """The tables of cosines and sines are as long and as wide as the engine's own."""
    config = _shallow(unquantised(name))
    spec = ModelSpec.from_hf(config, name="test", source="test")
    model = build(config, Layout(), Rank(), tmp_path)
    tables = sum(
        buffer.numel() * buffer.element_size() for key, buffer in model.named_buffers() if key.endswith("cos_sin_cache")
    )
    assert tables == _rotary_bytes(spec)


def _rotary_bytes(spec: ModelSpec) -> int:
    args = EngineArgs(max_num_batched_tokens=1).resolve(spec, Layout(), cpu_device(2**30))
    return rotary_bytes(spec, args)


def _shallow(config: dict[str, Any]) -> dict[str, Any]:
    text = config.get("text_config", config)
    text["num_hidden_layers"] = 4
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][:4]
    return config


def test_latent_attention_is_recognised_by_shape() -> None:
    """DeepSeek's own attention and its sparse indexer come from the config, not from a name."""
    spec = ModelSpec.from_hf(unquantised("deepseek-ai--DeepSeek-V3.2"), name="test", source="test")
    assert isinstance(spec.attention, LatentAttention)
    assert spec.attention.indexer is not None
