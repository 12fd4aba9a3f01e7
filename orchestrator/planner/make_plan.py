"""`make_plan`: search, build, verify; or say what is missing."""

from __future__ import annotations

from orchestrator.plan import Plan, verify
from orchestrator.planner.advice import no_feasible_plan
from orchestrator.planner.build import build_plan
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.search import search


def make_plan(request: PlanRequest) -> Plan:
    """The best plan for the request, its books balanced.

    Raises `NoFeasiblePlan` with the nearest miss and what would make it fit, `ConfigError` for arguments
    that no engine would take.
    """
    found = search(request)
    if found.winner is None:
        raise no_feasible_plan(request, found)
    plan = build_plan(request, found, found.winner)
    verify(plan)
    return plan
