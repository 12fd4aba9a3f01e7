"""Ranks are held against the plan: a wrong place or content fails, another weight only warns, and the rank is named."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deployments.rank_map import Comparison, RankPlan, ReportedRank, compare, read_reports
from deployments.worker_extension import held_layers
from tests.unit.plan.helpers import plan, rank


def report(number: int, **changes: Any) -> dict[str, Any]:
    """What rank `number` of the helpers' plan would say."""
    planned = rank(number)
    facts = {
        "rank": number,
        "tensor_rank": planned.tensor_rank,
        "pipeline_stage": planned.pipeline_stage,
        "node": planned.node,
        "gpu_index": planned.gpu_index,
        "layers": list(range(*planned.layers)),
        "experts": list(planned.experts or ()),
        "weights_bytes": planned.memory.weights_bytes,
    }
    return {**facts, **changes}


def compared(number: int, **changes: Any) -> Comparison:
    """The comparison when one rank says something else."""
    reports = [report(each, **(changes if each == number else {})) for each in (3, 1, 0, 2)]
    return compare(plan(), plan(), 0, read_reports(reports))


def test_ranks_as_planned_are_right() -> None:
    assert compared(0) == Comparison((), ())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"node": "b"}, "rank 2 on b, GPU 2: planned on a, GPU 2"),
        ({"tensor_rank": 1}, "is tensor rank 1 of stage 1, planned as tensor rank 0 of stage 1"),
        ({"pipeline_stage": 0}, "is tensor rank 0 of stage 0, planned as tensor rank 0 of stage 1"),
        ({"layers": [3]}, "holds layers 3 to 3, planned are layers 3 to 4"),
        ({"layers": []}, "holds no layer, planned are layers 3 to 4"),
        ({"layers": [1, 4]}, "holds layers 1, 4, planned are layers 3 to 4"),
        ({"experts": [0, 1, 2]}, "holds 3 whole experts (0 to 2), planned are 2 whole experts (0 to 1)"),
        ({"experts": None}, "holds a part of every expert, planned are 2 whole experts (0 to 1)"),
        ({"weights_bytes": 101}, "holds 101 B of weights, more than the 100 B of its GPU"),
    ],
)
def test_another_place_or_content_is_wrong_and_names_the_rank(changes: dict[str, Any], sentence: str) -> None:
    wrong = compared(2, **changes).wrong
    assert wrong[0].startswith("rank 2 on ")
    assert wrong[0].endswith(sentence)


def test_other_weights_within_the_gpu_are_odd_not_wrong() -> None:
    found = compared(1, weights_bytes=52)
    assert found.wrong == ()
    assert found.odd == ("rank 1 on a, GPU 1: holds 52 bytes of weights where 50 were planned (+4.0%, tolerated 2%)",)
    assert compared(1, weights_bytes=51) == Comparison((), ())


def test_a_rank_may_sit_on_any_gpu_of_its_node_but_on_none_that_another_has() -> None:
    assert compared(2, gpu_index=7) == Comparison((), ())
    swapped = read_reports([report(number, gpu_index=3 - number) for number in range(4)])
    assert compare(plan(), plan(), 0, swapped) == Comparison((), ())
    assert compared(2, gpu_index=1).wrong == ("rank 2 on a, GPU 1: rank 1 is there too",)
    assert compared(2, gpu_index=7, node="b").wrong == ("rank 2 on b, GPU 7: planned on a, GPU 2",)


def test_a_missing_rank_is_wrong() -> None:
    assert compare(plan(), plan(), 0, read_reports([report(0)])).wrong == ("1 ranks run, 4 were planned",)


def test_in_a_rehearsal_places_are_the_real_plans_and_contents_the_stand_ins() -> None:
    contents = plan(ranks=tuple(rank(number, node="elsewhere", layers=(0, 1), experts=None) for number in range(4)))
    said = read_reports([report(number, layers=[0], experts=None) for number in range(4)])
    documents: list[dict[str, Any]] = [each.model_dump(mode="json") for each in (plan(), contents)]
    assert RankPlan(0, *documents).compare(said) == Comparison((), ())
    assert RankPlan(0, documents[0], None).compare(said).wrong


def test_a_report_of_another_shape_is_refused() -> None:
    with pytest.raises(ValidationError):
        ReportedRank.model_validate({**report(0), "more": 1})


def test_layers_are_read_off_parameter_names() -> None:
    names = ["model.layers.10.mlp.w", "model.layers.2.mlp.w", "model.embed.weight", "model.layers.2.attn.w"]
    assert held_layers(names) == [2, 10]
    assert held_layers(["lm_head.weight"]) == []
