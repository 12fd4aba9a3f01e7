"""Differences between what runs and what is asked for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.diff import Change, differences

trees = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def test_a_change_names_its_path_and_both_values() -> None:
    before = {"engine": {"seed": 1, "dtype": "auto", "same": [1]}, "replicas": 1}
    after = {"engine": {"seed": 2, "max_num_seqs": 8, "same": [1]}, "replicas": 1}
    assert [str(change) for change in differences(before, after)] == [
        "engine.dtype: auto → (unset)",
        "engine.max_num_seqs: (unset) → 8",
        "engine.seed: 1 → 2",
    ]


def test_a_false_value_is_not_an_unset_one() -> None:
    assert list(differences({"auth": False}, {"auth": True})) == [Change("auth", False, True)]
    assert str(Change("x", 0, "")) == "x: 0 → "


@given(trees)
def test_equal_trees_do_not_differ(tree: Any) -> None:
    assert list(differences(tree, tree)) == []


@given(st.dictionaries(st.sampled_from("abc"), trees), st.dictionaries(st.sampled_from("abc"), trees))
def test_there_is_a_difference_exactly_when_trees_differ(before: Any, after: Any) -> None:
    changes = list(differences(before, after))
    assert bool(changes) == (before != after)
    assert [(c.path, c.after, c.before) for c in differences(after, before)] == [
        (c.path, c.before, c.after) for c in changes
    ]
