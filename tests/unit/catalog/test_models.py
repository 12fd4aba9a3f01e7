"""Models translated from `config.json`: published counts, kinds of layers, refusals that name the field."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import GroupedAttention, LatentAttention
from orchestrator.errors import ConfigError, OrchestratorError, UnknownArchitecture
from orchestrator.memory.budget import checkpoint_totals

CONFIGS = resources.files("orchestrator.catalog").joinpath("data/configs")

# Parameters without prediction layers, as the publishers' exact counts or sums over the shapes give them.
PUBLISHED_COUNTS = {
    "deepseek-ai--DeepSeek-V3": 671_026_419_200,
    "deepseek-ai--DeepSeek-V3.2": 671_877_944_064,
    "moonshotai--Kimi-K2-Instruct": 1_026_408_232_448,
    "mistralai--Mixtral-8x7B-v0.1": 46_702_792_704,
    "mistralai--Mixtral-8x22B-v0.1": 140_620_634_112,
    "Qwen--Qwen2-57B-A14B-Instruct": 57_408_658_944,
    "Qwen--Qwen3-235B-A22B": 235_093_634_560,
    "Qwen--Qwen3-30B-A3B": 30_532_122_624,
    "openai--gpt-oss-120b": 116_829_156_672,
    "zai-org--GLM-4.5": 352_797_829_024,
    "MiniMaxAI--MiniMax-M2.5": 228_689_764_864,
    "meta-llama--Meta-Llama-3.1-70B": 70_553_706_496,
}


def config(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(CONFIGS.joinpath(f"{name}.json").read_text("utf-8"))
    return document


def spec_of(name: str, **changes: Any) -> ModelSpec:
    document = {**config(name), **changes}
    document = {key: value for key, value in document.items() if value is not ...}
    return ModelSpec.from_hf(document, name=name, source=f"{name}.json")


@pytest.mark.parametrize("name", sorted(PUBLISHED_COUNTS))
def test_the_count_of_parameters_is_the_published_one(name: str) -> None:
    """Totals of the decoder, to the last parameter."""
    spec = spec_of(name, num_nextn_predict_layers=0)
    assert checkpoint_totals(spec).parameters == PUBLISHED_COUNTS[name]


def test_deepseek_counts_its_prediction_layer_with_its_copies() -> None:
    """685 billion with the prediction layer and its copies of embedding and head."""
    assert round(checkpoint_totals(spec_of("deepseek-ai--DeepSeek-V3")).parameters / 1e9, 1) == 684.5


def test_dense_layers_come_first_in_deepseek() -> None:
    """The first layers are dense, the others sparse."""
    layers = spec_of("deepseek-ai--DeepSeek-V3").layers
    assert [layer.sparse for layer in layers[:5]] == [False, False, False, True, True]


def test_llama_4_alternates_experts_and_chunks() -> None:
    """Every second layer has experts, every fourth sees the whole context."""
    layers = spec_of("meta-llama--Llama-4-Maverick-17B-128E-Instruct").layers
    assert [layer.sparse for layer in layers[:4]] == [False, True, False, True]
    assert [layer.window for layer in layers[:4]] == [8192, 8192, 8192, None]
    assert layers[0].chunked
    assert not layers[3].chunked


def test_gpt_oss_slides_on_every_other_layer() -> None:
    """128 tokens on even layers, everything on odd ones."""
    windows = [layer.window for layer in spec_of("openai--gpt-oss-20b").layers]
    assert windows == [128, None] * 12


def test_multimodal_checkpoints_are_read_through_their_text_config() -> None:
    """Kimi K2.5 is the K2 decoder with a vision tower of 0.47 billion parameters."""
    spec = spec_of("moonshotai--Kimi-K2.5")
    assert spec.num_layers == 61
    assert spec.vision is not None
    assert spec.vision.parameters == 471_143_920


def test_attention_is_told_by_its_own_fields() -> None:
    """MLA with an indexer, and grouped heads, each from the config."""
    sparse, grouped = spec_of("deepseek-ai--DeepSeek-V3.2").attention, spec_of("zai-org--GLM-4.5").attention
    assert isinstance(sparse, LatentAttention)
    assert sparse.indexer is not None
    assert isinstance(grouped, GroupedAttention)
    assert (grouped.num_kv_heads, grouped.qk_norm, grouped.rotary_dim) == (8, "head", 64)


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("moonshotai--Kimi-K2-Instruct", 131_072),
        ("deepseek-ai--DeepSeek-V3", 163_840),
        ("moonshotai--Kimi-K2-Thinking", 262_144),
        ("openai--gpt-oss-120b", 131_072),
        ("meta-llama--Meta-Llama-3.1-70B", 131_072),
    ],
)
def test_the_longest_context_includes_the_stretching_of_positions(name: str, longest: int) -> None:
    """Yarn stretches its original length, Llama 3 states the stretched one."""
    assert spec_of(name).max_model_len == longest


def test_an_unknown_architecture_is_refused_by_name() -> None:
    """Nothing about a class that is not known here is guessed."""
    with pytest.raises(UnknownArchitecture, match="MambaForCausalLM") as refused:
        spec_of("Qwen--Qwen3-30B-A3B", architectures=["MambaForCausalLM"])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("num_hidden_layers", ..., "num_hidden_layers is missing"),
        ("num_key_value_heads", ..., "num_key_value_heads is missing"),
        ("hidden_size", "2048", "hidden_size is '2048'; it must be a whole number"),
        ("hidden_size", 2048.5, "hidden_size is 2048.5"),
        ("num_experts", -8, "num_experts is -8"),
        ("num_experts", 0, "num_experts is 0"),
        ("vocab_size", True, "vocab_size is True"),
        ("moe_intermediate_size", 2**60, "moe_intermediate_size is"),
        ("tie_word_embeddings", "no", "tie_word_embeddings is 'no'; it must be true or false"),
        ("architectures", ..., "architectures is missing"),
        ("architectures", "Qwen3MoeForCausalLM", "architectures is 'Qwen3MoeForCausalLM'; it must be a list"),
        ("torch_dtype", "float8", "dtype is 'float8'"),
        ("torch_dtype", 16, "torch_dtype is 16; it must be a string"),
        ("rope_scaling", [1], "rope_scaling is [1]; it must be an object"),
        ("quantization_config", {"quant_method": "exl3"}, "quant_method 'exl3' is not known here"),
    ],
)
def test_a_bad_field_is_named_in_one_line(field: str, value: Any, said: str) -> None:
    """The source, the field, what it is and what it must be."""
    with pytest.raises(ConfigError) as refused:
        spec_of("Qwen--Qwen3-30B-A3B", **{field: value})
    assert said in str(refused.value)
    assert "Qwen3-30B-A3B.json" in str(refused.value)
    assert "\n" not in str(refused.value)


JUNK: tuple[Any, ...] = (None, True, -1, 0, 1, 3, 2.5, 10**30, "x", "", [], [1], ["x", 2], {}, {"a": 1}, [[]])
CONFIG_NAMES = sorted(path.name.removesuffix(".json") for path in CONFIGS.iterdir() if path.name.endswith(".json"))


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(CONFIG_NAMES), junk=st.sampled_from(JUNK), draw=st.data())
def test_junk_in_any_field_is_read_or_refused_in_one_line(name: str, junk: Any, draw: st.DataObject) -> None:
    """Whatever stands in whatever field, there is a model or one line, never a traceback."""
    document = config(name)
    inner = draw.draw(st.sampled_from([document, *(v for v in document.values() if isinstance(v, dict) and v)]))
    inner[draw.draw(st.sampled_from(sorted(inner)))] = junk
    said = ""
    try:
        checkpoint_totals(ModelSpec.from_hf(document, name=name, source=name))
    except OrchestratorError as refused:
        said = str(refused)
    assert "\n" not in said


def test_layer_types_must_be_one_for_each_layer() -> None:
    """A list of another length is a slip."""
    with pytest.raises(ConfigError, match="layer_types names 2 layers"):
        spec_of("meta-llama--Meta-Llama-3.1-70B", layer_types=["full_attention"] * 2)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("Qwen--Qwen3-30B-A3B", {"num_experts_per_tok": 129}, "129 experts a token, but the model has 128"),
        ("mistralai--Mixtral-8x7B-v0.1", {"num_key_value_heads": 5}, "must be a multiple of num_key_value_heads, 5"),
        (
            "meta-llama--Meta-Llama-3.1-70B",
            {"rope_scaling": {"rope_type": "spiral"}},
            "rope_type 'spiral' is not known",
        ),
        (
            "meta-llama--Meta-Llama-3.1-70B",
            {"layer_types": ["linear_attention"] * 80, "sliding_window": 4096},
            "layer_types has 'linear_attention'",
        ),
        ("openai--gpt-oss-20b", {"quantization_config": {"quant_method": "aqlm"}}, "quant_method 'aqlm' is not known"),
    ],
)
def test_a_variant_that_no_engine_runs_or_nobody_knows_is_refused(
    name: str, changes: dict[str, Any], said: str
) -> None:
    """Rather than counted as if it were the model it looks like."""
    with pytest.raises(ConfigError, match=said):
        spec_of(name, **changes)


@pytest.mark.parametrize(
    "architecture",
    [
        "Qwen3NextForCausalLM", "DeepseekForCausalLM", "DeepseekV4ForCausalLM", "GraniteMoeSharedForCausalLM",
        "JambaForCausalLM", "Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration", "mixtralforcausallm",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["mistralai--Mixtral-8x7B-v0.1", "deepseek-ai--DeepSeek-V3"])
def test_a_near_architecture_is_refused_by_name_whatever_its_keys(name: str, architecture: str) -> None:
    with pytest.raises(UnknownArchitecture, match=f"architecture {architecture} is not known here"):
        spec_of(name, architectures=[architecture])
