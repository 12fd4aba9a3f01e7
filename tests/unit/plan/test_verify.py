"""A plan's books: whatever is held twice, lost or miscounted is found and named."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import PlanInconsistent
from orchestrator.plan import Parallelism, problems, verify
from tests.unit.plan.helpers import MEMORY, plan, rank


def with_rank(number: int, **changes: Any) -> tuple[Any, ...]:
    return tuple(rank(n, **(changes if n == number else {})) for n in range(4))


def test_a_sound_plan_has_no_problems() -> None:
    verify(plan())


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (
            "accounts for 99 bytes",
            {"ranks": with_rank(1, memory=MEMORY.model_copy(update={"free_bytes": 9}))},
        ),
        ("GPU 0 of node a carries 2 ranks", {"ranks": with_rank(1, gpu_index=0)}),
        ("not in the cluster", {"ranks": with_rank(2, node="b")}),
        ("GPU 4 of a, which has 4", {"ranks": with_rank(3, gpu_index=4)}),
        (
            "but a GPU of node a has 100",
            {"ranks": with_rank(0, memory=MEMORY.model_copy(update={"free_bytes": 11, "capacity_bytes": 101}))},
        ),
        ("lacks rank 3", {"ranks": with_rank(3)[:3]}),
        ("has no place for", {"parallelism": Parallelism(tensor=2, pipeline=1, expert=True)}),
        ("rank 2 2 times", {"ranks": (*with_rank(0)[:3], rank(2))}),
        (
            "stage 1 holds layers [4, 5) after layer 3",
            {"ranks": (rank(0), rank(1), rank(2, layers=(4, 5)), rank(3, layers=(4, 5)))},
        ),
        ("ranks of stage 0 hold different layers", {"ranks": with_rank(0, layers=(0, 2))}),
        ("expert 3 is held by no rank", {"ranks": with_rank(3, experts=(2, 4))}),
        ("1 expert copies beyond one each", {"ranks": with_rank(3, experts=(2, 3, 0))}),
        ("1 ranks have no experts while others have", {"ranks": with_rank(0, experts=None)}),
        ("expert parallel is off", {"parallelism": Parallelism(tensor=2, pipeline=2)}),
        (
            "0 expert copies beyond one each, 2 redundant ones declared",
            {"parallelism": Parallelism(tensor=2, pipeline=2, expert=True, redundant_experts=2)},
        ),
    ],
)
def test_each_imbalance_is_found_and_named(expected: str, changes: dict[str, Any]) -> None:
    broken = plan(**changes)
    assert any(expected in problem for problem in problems(broken)), list(problems(broken))
    with pytest.raises(PlanInconsistent, match="do not balance"):
        verify(broken)


def test_replicas_must_hold_the_same_layers() -> None:
    second = tuple(rank(n, replica=1, node="b", layers=((0, 3), (3, 6))[n // 2]) for n in range(4))
    both = plan(ranks=(*with_rank(0), *second), parallelism=Parallelism(tensor=2, pipeline=2, expert=True, replicas=2))
    assert any("different layers" in problem for problem in problems(both))


def test_redundant_copies_balance() -> None:
    copies = plan(
        parallelism=Parallelism(tensor=2, pipeline=2, expert=True, redundant_experts=2),
        ranks=tuple(rank(n, experts=((0, 1, 2), (3, 0, 1))[n % 2]) for n in range(4)),
    )
    verify(copies)
