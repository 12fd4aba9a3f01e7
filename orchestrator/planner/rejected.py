"""Every candidate that lost, with the reason and its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.memory.layout import Layout
from orchestrator.plan import Parallelism, Rejected
from orchestrator.planner.candidate import Candidate, Outcome
from orchestrator.planner.fitting import Fit, fit
from orchestrator.planner.legality import Refusal, refuse
from orchestrator.planner.score import Contender, deciding
from orchestrator.planner.search import Found
from orchestrator.units import format_bytes


def rejected_of(found: Found, winner: Contender) -> tuple[Rejected, ...]:
    """Those that fit and were outranked, best first; then data-parallel ones; then those that do not fit."""
    outranked = (_outranked(winner, loser) for loser in found.contenders if loser is not winner)
    refused = (_refused(winner, outcome) for outcome in found.refused)
    return (*outranked, *_data_parallel(winner), *refused)


def parallelism_of(layout: Layout, replicas: int) -> Parallelism:
    return Parallelism(
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        decode_context=layout.decode_context,
        expert=layout.expert,
        redundant_experts=layout.redundant_experts,
        replicas=replicas,
    )


def _entry(winner: Contender, candidate: Candidate, layout: Layout, code: str, reason: str) -> Rejected:
    several = len(winner.request.cluster.kinds) > 1
    where = f"on {candidate.pool.describe()}: " if several else ""
    return Rejected(parallelism=parallelism_of(layout, winner.request.replicas), code=code, reason=where + reason)


def _outranked(winner: Contender, loser: Contender) -> Rejected:
    criterion = deciding(winner, loser)
    reason = "fits, and is equal in everything that is compared"
    if criterion is not None:
        reason = f"fits, but {criterion.sentence(loser)}; chosen instead: {criterion.sentence(winner)}"
    return _entry(winner, loser.candidate, loser.layout, "outranked", reason)


def _refused(winner: Contender, outcome: Outcome) -> Rejected:
    if not isinstance(outcome.result, Refusal):
        raise AssertionError(f"{outcome.candidate.layout} fits and is no refusal")
    code, reason = outcome.result.code, outcome.result.reason
    return _entry(winner, outcome.candidate, outcome.candidate.layout, code, reason)


def _data_parallel(winner: Contender) -> Iterator[Rejected]:
    """Data-parallel attention on the same GPUs: only what can be deployed is recommended."""
    request, layout = winner.request, winner.layout
    if not request.spec.is_moe or request.fixed.data is not None or request.exact_args:
        return
    for data in (degree for degree in range(2, layout.tensor + 1) if layout.tensor % degree == 0):
        other = replace(layout, tensor=layout.tensor // data, data=data, expert=True, decode_context=1)
        result = _data_parallel_result(winner, other)
        if isinstance(result, Fit):
            yield _entry(winner, winner.candidate, other, "data_parallel_not_deployable", _attention(result, data))
        else:
            yield _entry(winner, winner.candidate, other, result.code, result.reason)


def _data_parallel_result(winner: Contender, layout: Layout) -> Fit | Refusal:
    request = winner.request
    refusal = refuse(request.spec, layout, request.quantization, by_choice=False)
    return refusal or fit(request, layout, (winner.candidate.pool.gpus,) * layout.pipeline)


def _attention(result: Fit, data: int) -> str:
    weights = max(budget.weights_bytes for budget in result.budgets)
    return (
        f"fits, with {format_bytes(weights)} of weights a rank and {result.capacity.tokens:,} KV tokens on "
        f"each of {data} engines, but deploy cannot apply data-parallel attention yet; "
        f"--data-parallel-size {data} plans it all the same"
    )
