"""Where a candidate's ranks would sit, and so which GPUs each stage runs on."""

from __future__ import annotations

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.planner.candidate import Candidate
from orchestrator.planner.placement import Replica, place, place_straddling


def seats(candidate: Candidate, replicas: int) -> tuple[Replica, ...] | None:
    """Tensor groups for every replica, in rank order; None where the pool has too few."""
    layout, pool = candidate.layout, candidate.pool
    groups = layout.pipeline * layout.data
    if candidate.straddles:
        return place_straddling(pool.nodes, layout.tensor, groups, replicas)
    whole = pool.whole_groups(layout.tensor) >= groups * replicas
    return place(pool.nodes, layout.tensor, groups, replicas, whole, in_order=pool.is_mixed)


def stage_gpus(candidate: Candidate, replicas: int) -> tuple[tuple[GpuSpec, ...], ...]:
    """The kinds of GPU that each stage would run on; only mixed pools need to be seated to know."""
    layout, pool = candidate.layout, candidate.pool
    placed = seats(candidate, replicas) if pool.is_mixed else None
    if placed is None:
        return (pool.gpus,) * layout.pipeline
    kinds = [
        {seat.node.kind for replica in placed for group in replica[stage :: layout.pipeline] for seat in group}
        for stage in range(layout.pipeline)
    ]
    return tuple(tuple(pool.gpu_of(kind) for kind in sorted(stage)) for stage in kinds)
