"""Weights per rank: together the ranks hold the model once, with the copies that the engine makes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization, QuantizationRule, WeightScheme
from orchestrator.catalog.registry import load_catalog, resolve_model
from orchestrator.errors import ConfigError
from orchestrator.memory.budget import checkpoint_totals, rank_parameters
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import Cut, cut_of, shard_shape, stage_totals
from orchestrator.memory.weights import Split, Weight, layer_weights

KIMI = resolve_model("kimi-k2")
CHECKPOINTS = [
    (entry.name, checkpoint.hf_id)
    for entry in load_catalog().entries
    for checkpoint in entry.checkpoints
    if checkpoint.size_bytes is not None
]


@pytest.mark.parametrize(("name", "hf_id"), CHECKPOINTS)
def test_a_checkpoint_has_its_published_size(name: str, hf_id: str) -> None:
    """Bytes of every checkpoint whose size is known, within half a percent."""
    found = load_catalog().find(hf_id)
    assert found is not None, name
    published = found[1].size_bytes
    assert published is not None
    assert abs(checkpoint_totals(load_catalog().spec(*found)).size_bytes / published - 1) < 0.005


def test_kimi_k2s_checkpoint_is_met_to_a_millionth() -> None:
    """1,029,173,256,720 bytes on the hub."""
    assert abs(checkpoint_totals(KIMI).size_bytes - 1_029_173_256_720) < 1_000_000


def test_kimi_k2_over_eight_by_two_is_what_the_engine_builds() -> None:
    """64.665 and 64.590 billion parameters on ranks of the two stages, read from vLLM's own class."""
    layout = Layout(tensor=8, pipeline=2)
    assert rank_parameters(KIMI, layout, 0) == 64_664_956_160
    assert rank_parameters(KIMI, layout, 1) == 64_589_515_008


def _split_parameters(spec: ModelSpec, layout: Layout) -> int:
    """Parameters of all ranks of a replica, copies of whole weights counted once a stage and layer."""
    whole = _whole_layer_parameters(spec)
    total = 0
    for stage in range(layout.pipeline):
        for rank in range(layout.tensor):
            copies = whole * len(range(*layout.stage_layers(spec.num_layers)[stage])) if rank else 0
            total += rank_parameters(spec, layout, stage, rank) - copies
    return total


def _whole_layer_parameters(spec: ModelSpec) -> int:
    weights = layer_weights(spec, spec.layers[-1])
    return sum(weight.parameters for weight in weights if weight.split is Split.WHOLE)


@settings(max_examples=40, deadline=None)
@given(tensor=st.sampled_from([1, 2, 4, 8]), pipeline=st.integers(1, 8), expert=st.booleans())
def test_a_replica_holds_the_model_once(tensor: int, pipeline: int, expert: bool) -> None:
    """Cut weights add up to the model; whole ones are on every rank of a tensor group."""
    spec = resolve_model("minimax-m2.5")
    layout = Layout(tensor, pipeline, expert=expert and tensor > 1)
    norm_copies = (tensor - 1) * spec.hidden_size
    one_rank = rank_parameters(spec, Layout(), 0)
    assert _split_parameters(spec, layout) == one_rank + norm_copies


def test_redundant_experts_cost_their_own_weights() -> None:
    """Eight more experts over eight ranks are one more on each."""
    plain, more = Layout(tensor=8, expert=True), Layout(tensor=8, expert=True, redundant_experts=8)
    moe = KIMI.moe
    assert moe is not None
    expert = 3 * moe.intermediate_size * KIMI.hidden_size
    sparse = sum(layer.sparse for layer in KIMI.layers)
    assert rank_parameters(KIMI, more, 0) - rank_parameters(KIMI, plain, 0) == expert * sparse


def test_data_parallel_attention_copies_all_that_is_no_expert() -> None:
    """Eight data ranks with expert parallelism hold an eighth of the experts and all else each."""
    tensor, data = Layout(tensor=8), Layout(data=8, expert=True)
    assert rank_parameters(KIMI, data, 0) > 1.05 * rank_parameters(KIMI, tensor, 0)


def test_key_value_heads_fewer_than_ranks_are_copied() -> None:
    """Four heads over eight ranks: one whole head each."""
    weight = Weight("self_attn.k_proj", 4 * 128, 4096, Split.KV_HEADS, units=4)
    assert shard_shape(weight, Cut(tensor=8)) == (128, 4096)
    assert shard_shape(weight, Cut(tensor=2)) == (256, 4096)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (Weight("self_attn.q_proj", 28 * 128, 3584, Split.ROWS, units=28), "28 is not divisible by 8"),
        (Weight("mlp.down_proj", 4096, 1500, Split.COLUMNS), "1500 is not divisible by 8"),
        (Weight("self_attn.k_proj", 6 * 128, 4096, Split.KV_HEADS, units=6), "6 key-value heads"),
    ],
)
def test_what_the_engine_could_not_cut_is_refused(weight: Weight, said: str) -> None:
    """Heads are never cut through, and sizes divide evenly."""
    with pytest.raises(ConfigError, match=said):
        shard_shape(weight, Cut(tensor=8))


def test_only_covered_modules_are_stored_quantised() -> None:
    """Experts in INT4, all else as it is: the bytes follow module by module."""
    spec = resolve_model("kimi-k2-thinking")
    cut = Cut(local_experts=384)
    bits = 8 * stage_totals(spec, spec.quantization, spec.dtype, (1, 2), cut).size_bytes
    parameters = stage_totals(spec, None, spec.dtype, (1, 2), cut).parameters
    # 4 bits and a 16-bit scale per 32 for experts; attention and shared experts keep 16.
    assert 4.5 < bits / parameters < 4.7


def test_a_quantised_weight_is_smaller_than_a_plain_one() -> None:
    """FP8 halves what it covers and leaves embeddings and head alone."""
    spec = resolve_model("meta-llama/Meta-Llama-3-70B-Instruct")
    fp8 = Quantization("fp8", (QuantizationRule(WeightScheme("fp8", "tensor")),))
    cut = cut_of(spec, Layout(tensor=4))
    everything = (0, spec.num_layers)
    plain = stage_totals(spec, None, spec.dtype, everything, cut).size_bytes
    quantised = stage_totals(spec, fp8, spec.dtype, everything, cut).size_bytes
    assert 0.50 < quantised / plain < 0.53
