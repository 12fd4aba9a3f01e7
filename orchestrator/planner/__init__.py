"""From a model and a cluster to a plan: enumerate, refuse with reasons, place, rank."""

from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.make_plan import make_plan
from orchestrator.planner.request import FixedDegrees, PlanRequest

__all__ = ["FixedDegrees", "PlanRequest", "Wishes", "build_request", "make_plan"]
