"""The search: candidates, the ones that fit in order of merit, the others with their reasons.

Four passes, each only if those before found nothing that fits: one kind of GPU with tensor groups inside
nodes; several kinds; then the same two with tensor groups that straddle nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.planner.candidate import Outcome
from orchestrator.planner.enumeration import outcomes
from orchestrator.planner.fitting import Fit, fit
from orchestrator.planner.legality import Refusal
from orchestrator.planner.pools import Pool, mixed_pools_of, pools_of
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.score import Contender, ranked
from orchestrator.planner.seating import stage_gpus


@dataclass(frozen=True)
class Found:
    """Contenders best first, and every candidate that was refused."""

    contenders: tuple[Contender, ...]
    refused: tuple[Outcome, ...]

    @property
    def winner(self) -> Contender | None:
        return self.contenders[0] if self.contenders else None


def search(request: PlanRequest) -> Found:
    """Every candidate of the first pass in which one fits; of all passes where none does."""
    refused: list[Outcome] = []
    for pools, straddling in _passes(request):
        contenders: list[Contender] = []
        for pool in pools:
            for outcome in outcomes(request, pool, straddling):
                if isinstance(outcome.result, Fit):
                    contenders.append(Contender(request, outcome.candidate, outcome.result))
                else:
                    refused.append(outcome)
        if contenders:
            return Found(tuple(ranked(contenders)), tuple(refused))
    return Found((), tuple(refused))


def _passes(request: PlanRequest) -> Iterator[tuple[tuple[Pool, ...], bool]]:
    single = tuple(pool for pool in pools_of(request.cluster) if _wanted(request, pool))
    yield single, False
    mixed = tuple(pool for pool in mixed_pools_of(request.cluster) if _wanted(request, pool))
    yield mixed, False
    yield single, True
    yield mixed, True


def _wanted(request: PlanRequest, pool: Pool) -> bool:
    wanted = request.constraints.gpu_type
    return wanted is None or all(kind.gpu_type == resolve_gpu(wanted).name for kind in pool.kinds)


def nearest_miss(request: PlanRequest, found: Found) -> tuple[Outcome, Refusal] | None:
    """The refused candidate that lacks the fewest bytes a rank, worked out exactly.

    None where none was refused for bytes.
    """
    short = [
        (outcome, outcome.result)
        for outcome in found.refused
        if isinstance(outcome.result, Refusal) and outcome.result.missing_bytes is not None
    ]
    if not short:
        return None
    outcome, refusal = min(short, key=_miss)
    exact = fit(request, outcome.candidate.layout, stage_gpus(outcome.candidate, request.replicas))
    return outcome, exact if isinstance(exact, Refusal) else refusal


# It serves, but too few; it loads, but not one request fits; it does not load.
_FURTHEST_FIRST = ("concurrency_does_not_fit", "context_does_not_fit", "weights_do_not_fit")


def _miss(short: tuple[Outcome, Refusal]) -> tuple[int, int, int, int, int]:
    """What gets furthest is nearest; then bytes; among equals the layout that people would try first."""
    outcome, refusal = short
    layout = outcome.candidate.layout
    return (
        _FURTHEST_FIRST.index(refusal.code),
        refusal.missing_bytes or 0,
        layout.pipeline,
        -layout.tensor,
        layout.expert,
    )
