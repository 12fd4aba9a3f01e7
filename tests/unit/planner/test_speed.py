"""Planning is quick, and grows no faster than the cluster.

Time itself is measured by scripts/bench; here a run-away is stopped by a time limit far above the
measured figures, and growth is counted in function calls, which do not depend on the machine.
"""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from orchestrator.plan import Constraints
from orchestrator.planner import PlanRequest, make_plan
from tests.unit.planner.helpers import ask

KINDS = ("H100", "H200", "A100-80G", "L40S")


def four_kinds(num_gpus: int) -> str:
    return ",".join(f"{num_gpus // 4}x{kind}" for kind in KINDS)


def calls(request: PlanRequest) -> int:
    """Python functions called while planning, once the caches are warm."""
    make_plan(request)
    count = 0

    def counted(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        make_plan(request)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.timeout(10)
def test_kimi_k2_on_sixteen_gpus_is_planned_at_once() -> None:
    assert make_plan(ask("kimi-k2", "16xH100")).parallelism.num_gpus == 16


@pytest.mark.timeout(30)
def test_ten_thousand_gpus_of_four_kinds_are_planned_in_seconds() -> None:
    plan = make_plan(ask("kimi-k2", four_kinds(10_000)))
    assert len(plan.cluster.nodes) == 1_252


@pytest.mark.timeout(60)
@pytest.mark.parametrize("replicas", [1, 20])
def test_ten_times_the_gpus_take_at_most_fifteen_times_the_work(replicas: int) -> None:
    few = ask("kimi-k2", four_kinds(1_000), constraints=Constraints(replicas=replicas))
    many = ask("kimi-k2", four_kinds(10_000), constraints=Constraints(replicas=replicas * 10))
    assert calls(many) <= 15 * calls(few)
