"""Where the time went: phases add up to the wall time whatever the engine's processes tell, and in which order."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.timeline import PHASES, Timeline

times = st.floats(0, 10_000, allow_nan=False)
marks = st.lists(st.tuples(st.sampled_from(PHASES), times), min_size=1, max_size=30)


@given(marks, times)
def test_seconds_add_up_to_the_wall_time(told: list[tuple[str, float]], later_s: float) -> None:
    timeline = Timeline()
    for phase, at_s in told:
        timeline.mark(phase, at_s)
    until_s = timeline.marks[-1][0] + later_s
    spent = timeline.seconds(until_s)
    assert sum(spent.values()) == pytest.approx(until_s - timeline.marks[0][0])
    assert all(seconds >= 0 for seconds in spent.values())


@given(marks)
def test_no_phase_that_is_over_begins_again(told: list[tuple[str, float]]) -> None:
    timeline = Timeline()
    news = [phase for phase, at_s in told if timeline.mark(phase, at_s)]
    assert timeline.current == news[-1]
    for before, after in pairwise(news):
        assert PHASES.index(before) < PHASES.index(after) or (before, after) == ("KV cache", "warm-up")


def test_warm_up_goes_on_after_the_cache_is_allocated() -> None:
    timeline = Timeline()
    for at_s, phase in enumerate(["weights", "warm-up", "KV cache", "warm-up", "first token"]):
        assert timeline.mark(phase, at_s)
    assert timeline.seconds(10) == {"weights": 1, "warm-up": 2, "KV cache": 1, "first token": 6}


def test_a_mark_of_the_past_does_not_turn_time_back() -> None:
    timeline = Timeline([(100.0, "placement")])
    timeline.mark("weights", 50)
    assert timeline.seconds(110) == {"placement": 0, "weights": 10}


def test_nothing_marked_is_nothing_spent() -> None:
    assert (Timeline().seconds(5), Timeline().current) == ({}, None)


def test_an_unknown_phase_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError):
        Timeline().mark("lunch", 1)
