"""The plan document: what it holds, whether its books balance, how two of them differ."""

from orchestrator.plan.document import (
    Constraints,
    Objective,
    Parallelism,
    Plan,
    PlannedCluster,
    PlannedEngine,
    PlannedKVCache,
    PlannedModel,
    PlannedNode,
    PlannedRank,
    PlanWarning,
    RankMemory,
    Rejected,
    load_plan,
)
from orchestrator.plan.verify import problems, verify

__all__ = [
    "Constraints",
    "Objective",
    "Parallelism",
    "Plan",
    "PlanWarning",
    "PlannedCluster",
    "PlannedEngine",
    "PlannedKVCache",
    "PlannedModel",
    "PlannedNode",
    "PlannedRank",
    "RankMemory",
    "Rejected",
    "load_plan",
    "problems",
    "verify",
]
