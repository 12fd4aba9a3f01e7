"""Layouts: sizes of groups, stages of layers and experts of ranks, by the engine's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.memory.layout import Layout


@pytest.mark.parametrize(
    ("num_layers", "stages", "sizes"),
    [
        (61, 2, [31, 30]),
        (61, 3, [20, 21, 20]),
        (62, 4, [15, 16, 16, 15]),
        (63, 4, [16, 16, 16, 15]),
        (32, 4, [8, 8, 8, 8]),
    ],
)
def test_layers_are_divided_as_the_engine_divides_them(num_layers: int, stages: int, sizes: list[int]) -> None:
    """What is left over goes to the middle stages first, never to the last."""
    division = Layout(pipeline=stages).stage_layers(num_layers)
    assert [end - first for first, end in division] == sizes


@given(num_layers=st.integers(1, 200), stages=st.integers(1, 16))
def test_every_layer_is_on_exactly_one_stage(num_layers: int, stages: int) -> None:
    """Stages follow one another without gap or overlap."""
    if stages > num_layers:
        return
    division = Layout(pipeline=stages).stage_layers(num_layers)
    assert [layer for first, end in division for layer in range(first, end)] == list(range(num_layers))


@pytest.mark.parametrize("sizes", [(30, 30), (61,), (61, 0), (62, -1)])
def test_a_custom_division_must_add_up(sizes: tuple[int, ...]) -> None:
    """Each stage has a layer, and all layers a stage."""
    with pytest.raises(ConfigError, match="must be 2 positive numbers that add up to 61"):
        Layout(pipeline=2, layers_per_stage=sizes).stage_layers(61)


@given(
    num_experts=st.integers(1, 400),
    tensor=st.integers(1, 8),
    data=st.integers(1, 8),
    redundant=st.integers(0, 32),
    placement=st.sampled_from(["linear", "round_robin"]),
)
def test_every_expert_is_on_exactly_one_rank(
    num_experts: int, tensor: int, data: int, redundant: int, placement: str
) -> None:
    """Whole experts, redundant copies included, are dealt out once."""
    layout = Layout(tensor, 1, data, True, 1, redundant, None, placement)  # type: ignore[arg-type]
    dealt = [
        expert
        for data_rank in range(data)
        for tensor_rank in range(tensor)
        for expert in layout.local_experts(num_experts, tensor_rank, data_rank)
    ]
    assert sorted(dealt) == list(range(num_experts + redundant))


def test_experts_are_consecutive_or_dealt_in_turn() -> None:
    """Rank 1 of 4 over 384 experts: linear holds 96 to 191, round robin every fourth."""
    linear = Layout(tensor=4, expert=True).local_experts(384, 1, 0)
    dealt = Layout(tensor=4, expert=True, expert_placement="round_robin").local_experts(384, 1, 0)
    assert linear == tuple(range(96, 192))
    assert dealt == tuple(range(1, 384, 4))


def test_without_expert_parallelism_every_rank_cuts_every_expert() -> None:
    """Tensor and data ranks together cut each expert, as vLLM flattens them."""
    layout = Layout(tensor=4, data=2)
    assert len(layout.local_experts(8, 3, 1)) == 8
    assert layout.expert_tensor_size == 8
    assert Layout(tensor=4, data=2, expert=True).expert_tensor_size == 1


def test_shared_experts_are_whole_only_where_layers_run_on_sequence_shards() -> None:
    """Expert parallelism over tensor and data ranks at once."""
    assert Layout(tensor=2, data=2, expert=True).shared_experts_replicated
    assert not Layout(tensor=8, expert=True).shared_experts_replicated
    assert not Layout(data=8, expert=True).shared_experts_replicated
