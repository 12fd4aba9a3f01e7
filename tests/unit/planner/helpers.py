"""Requests for tests, short to write."""

from __future__ import annotations

from typing import Any

from orchestrator.catalog.registry import load_catalog, resolve_model
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.cluster.spec import parse_gpus
from orchestrator.plan import Constraints, Objective, Plan
from orchestrator.planner import PlanRequest, make_plan
from orchestrator.planner.arguments import Wishes, build_request


def ask(
    model: str,
    cluster: str | ClusterSnapshot,
    *,
    objective: Objective = "throughput",
    constraints: Constraints | None = None,
    **arguments: Any,
) -> PlanRequest:
    """A request as `plan MODEL --gpus CLUSTER …` makes it; arguments by vLLM's names."""
    machines = parse_gpus(cluster) if isinstance(cluster, str) else cluster
    found = load_catalog().find(model)
    wishes = Wishes(
        arguments=arguments,
        objective=objective,
        constraints=constraints or Constraints(),
        needs_remote_code=found is not None and found[0].needs_remote_code,
    )
    return build_request(resolve_model(model), machines, wishes)


def planned(model: str, cluster: str | ClusterSnapshot, **options: Any) -> Plan:
    return make_plan(ask(model, cluster, **options))


def fp8(model: str) -> dict[str, str]:
    """FP8 weights for a checkpoint that is stored in 16 bits."""
    return {} if resolve_model(model).quantization else {"quantization": "fp8"}


def codes(plan: Plan) -> set[str]:
    return {warning.code for warning in plan.warnings}
