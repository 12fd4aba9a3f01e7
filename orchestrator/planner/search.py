"""The search: candidates, the ones that fit in order of merit, the others with their reasons.

Four passes, each only if those before found nothing that fits: one kind of GPU with tensor groups inside
nodes; several kinds; then the same two with tensor groups that straddle nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.planner.candidate import Candidate, Outcome
from orchestrator.planner.enumeration import outcomes
from orchestrator.planner.fitting import Fit, fit
from orchestrator.planner.legality import Refusal
from orchestrator.planner.pools import Pool, mixed_pools_of, pools_of
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.score import Contender, cannot_win, full_key, ranked
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
        field = _Field()
        for pool in pools:
            for outcome in outcomes(request, pool, straddling, field.cannot_win):
                if isinstance(outcome.result, Fit):
                    field.add(Contender(request, outcome.candidate, outcome.result))
                else:
                    refused.append(outcome)
        if field.best is not None:
            return Found(tuple(ranked(field.contenders)), tuple(refused))
    return Found((), tuple(refused))


class _Field:
    """The contenders of one pass so far, and the best of them."""

    def __init__(self) -> None:
        self.contenders: list[Contender] = []
        self.best: Contender | None = None

    def add(self, contender: Contender) -> None:
        self.contenders.append(contender)
        if self.best is None or full_key(contender) < full_key(self.best):
            self.best = contender

    def cannot_win(self, candidate: Candidate) -> bool:
        return self.best is not None and cannot_win(candidate, self.best)


def _passes(request: PlanRequest) -> Iterator[tuple[tuple[Pool, ...], bool]]:
    single = tuple(pool for pool in pools_of(request.cluster) if _wanted(request, pool))
    yield single, False
    mixed = tuple(pool for pool in mixed_pools_of(request.cluster) if _wanted(request, pool))
    yield mixed, False
    yield single, True
    yield mixed, True


def _wanted(request: PlanRequest, pool: Pool) -> bool:
    wanted = request.constraints.gpu_type
    return wanted is None or all(kind.gpu_type == request.cluster.gpus.resolve(wanted).name for kind in pool.kinds)


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
