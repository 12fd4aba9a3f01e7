"""Every layout worth a look, pool by pool, and what each comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from orchestrator.memory.layout import Layout
from orchestrator.planner.candidate import Candidate, Outcome
from orchestrator.planner.fitting import Fit, fit, weights_alone
from orchestrator.planner.legality import Refusal, refuse
from orchestrator.planner.pools import Pool
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.rules import broken_rule
from orchestrator.planner.seating import stage_gpus

# Pipelines up to this depth are always worked out, for their reasons; deeper ones only if they may win.
STAGES_ALWAYS_SEEN = 8


def outcomes(
    request: PlanRequest, pool: Pool, straddling: bool, cannot_win: Callable[[Candidate], bool]
) -> Iterator[Outcome]:
    """All candidates of a pool: those inside nodes, or those whose tensor groups straddle nodes.

    The largest tensor groups come first. Stages are added until a layout has the headroom of production;
    deeper pipelines only add hops. `cannot_win` knows what was found so far.
    """
    for family in _families(request, pool, straddling):
        yield from _pipelines(request, Candidate(family, pool, straddling), cannot_win)


def _families(request: PlanRequest, pool: Pool, straddling: bool) -> Iterator[Layout]:
    """Layouts of one stage: tensor degree, data degree, experts cut or whole."""
    fixed = request.fixed
    for tensor in _tensor_degrees(request, pool, straddling):
        data = fixed.data or 1
        for expert in _expert_choices(request, tensor * data):
            yield Layout(
                tensor=tensor,
                data=data,
                expert=expert,
                decode_context=fixed.decode_context or 1,
                redundant_experts=fixed.redundant_experts or 0,
                layers_per_stage=fixed.layers_per_stage,
                expert_placement=fixed.expert_placement,
            )


def _tensor_degrees(request: PlanRequest, pool: Pool, straddling: bool) -> list[int]:
    most = request.gpus_at_most(pool.num_gpus)
    if straddling:
        heads = request.spec.attention.num_heads
        degrees = [n for n in range(2, min(heads, most) + 1) if heads % n == 0]
    else:
        degrees = list(range(1, min(pool.largest_node, most) + 1))
    fixed = request.fixed.tensor
    if fixed is None:
        return degrees[::-1]
    return [fixed] if straddling or fixed <= pool.largest_node else []


def _expert_choices(request: PlanRequest, ranks: int) -> tuple[bool, ...]:
    if request.fixed.expert is not None:
        return (request.fixed.expert,)
    return (True, False) if request.spec.is_moe and ranks > 1 else (False,)


def _pipelines(request: PlanRequest, family: Candidate, cannot_win: Callable[[Candidate], bool]) -> Iterator[Outcome]:
    for stages in _stage_counts(request, family):
        candidate = replace(family, layout=replace(family.layout, pipeline=stages))
        if family.straddles and _inside_groups(request, candidate):
            continue
        if stages > STAGES_ALWAYS_SEEN and cannot_win(candidate):
            yield Outcome(candidate, _too_deep(stages))
            return
        outcome = Outcome(candidate, _result(request, candidate))
        yield outcome
        if _is_last(outcome.result):
            return


def _too_deep(stages: int) -> Refusal:
    reason = f"{stages} stages or more cannot win: a layout with fewer stages or fewer GPUs has been found to fit"
    return Refusal("too_many_stages", reason)


def _is_last(result: Fit | Refusal) -> bool:
    """Whether more stages cannot be better: production already, or a rule that stages do not touch."""
    if isinstance(result, Fit):
        return result.label == "production"
    return result.missing_bytes is None


def _stage_counts(request: PlanRequest, family: Candidate) -> range:
    if request.fixed.pipeline is not None:
        return range(request.fixed.pipeline, request.fixed.pipeline + 1)
    room = request.gpus_at_most(family.pool.num_gpus) // family.layout.world_size
    return range(1, max(1, min(room, request.spec.num_layers)) + 1)


def _result(request: PlanRequest, candidate: Candidate) -> Fit | Refusal:
    layout, pool = candidate.layout, candidate.pool
    quantization = request.quantization
    fixed = request.fixed
    by_choice = fixed.tensor is not None and fixed.expert is not None
    refusal = (
        refuse(request.spec, layout, quantization, by_choice)
        or broken_rule(request, candidate)
        or _room(request, candidate)
        or weights_alone(request, layout, pool.gpus)
    )
    return refusal or fit(request, layout, stage_gpus(candidate, request.replicas))


def _room(request: PlanRequest, candidate: Candidate) -> Refusal | None:
    """Whether the pool has seats for all replicas."""
    layout, pool = candidate.layout, candidate.pool
    needed = layout.pipeline * layout.data * request.replicas
    gpus = needed * layout.tensor
    most = request.gpus_at_most(pool.num_gpus)
    if gpus > most:
        return Refusal("not_enough_gpus", f"needs {gpus} GPUs, and {most} of {pool.describe()} are free to use")
    if not candidate.straddles and not _inside_groups(request, candidate):
        groups = pool.node_groups(layout.tensor)
        return Refusal(
            "not_enough_groups",
            f"needs {needed} groups of {layout.tensor} GPUs inside nodes; {pool.describe()} has {groups}",
        )
    return None


def _inside_groups(request: PlanRequest, candidate: Candidate) -> bool:
    """Whether every tensor group has room inside some node."""
    layout = candidate.layout
    needed = layout.pipeline * layout.data * request.replicas
    return candidate.pool.node_groups(layout.tensor) >= needed
