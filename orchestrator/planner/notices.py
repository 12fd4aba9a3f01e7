"""What to know about a plan before applying it: engine rules, and the planner's own remarks."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.plan import PlanWarning
from orchestrator.planner.rules import rule_sentences
from orchestrator.planner.score import Contender


def warnings_of(winner: Contender) -> tuple[PlanWarning, ...]:
    """What the request's reader noticed, the planner's own remarks, then the engine's rules."""
    own = [(code, sentence(winner)) for code, holds, sentence in _REMARKS if holds(winner)]
    found = [*winner.request.remarks, *own, *rule_sentences(winner.request, winner.candidate, "warning")]
    return tuple(PlanWarning(code=code, message=message) for code, message in found)


def notes_of(winner: Contender) -> tuple[str, ...]:
    """What is good to know and no reason to hesitate: shown beside the plan, not part of it."""
    rules = [sentence for _, sentence in rule_sentences(winner.request, winner.candidate, "note")]
    return (*rules, *_room_for_more(winner))


def _room_for_more(winner: Contender) -> tuple[str, ...]:
    """Replicas that the same GPUs would hold beside those planned."""
    layout, pool = winner.layout, winner.candidate.pool
    most = pool.node_groups(layout.tensor) // (layout.pipeline * layout.data)
    if winner.candidate.straddles or most <= winner.request.replicas or winner.request.constraints.gpus is not None:
        return ()
    return (f"{pool.num_gpus - winner.num_gpus} GPUs of {pool.describe()} stay free; --replicas {most} would fit",)


def _smoke_test(c: Contender) -> str:
    return (
        f"smoke test: the KV pool of the tightest rank is {c.fit.headroom:.0%} of all else; "
        "production wants 20 to 40 % for KV cache and concurrency"
    )


def _between(c: Contender) -> str:
    return (
        f"the KV pool of the tightest rank is {c.fit.headroom:.0%} of all else: above a smoke test, "
        "short of the 40 % of a comfortable production plan"
    )


def _mixed(c: Contender) -> str:
    return f"no single kind of GPU suffices: {c.candidate.pool.describe()} work in step, at the pace of the slowest"


def _lowered(c: Contender) -> str:
    return (
        f"max_num_seqs {c.fit.args.max_num_seqs} and max_num_batched_tokens "
        f"{c.fit.args.max_num_batched_tokens}: the engine's own defaults would not fit"
    )


def _uneven(c: Contender) -> str:
    sizes = ", ".join(str(size) for size in c.layout.layers_per_stage or ())
    return (
        f"layers are divided {sizes} (VLLM_PP_LAYER_PARTITION): the engine's own division leaves "
        "the tightest stage less room"
    )


def _division_is_ours(c: Contender) -> bool:
    return c.layout.layers_per_stage is not None and c.request.fixed.layers_per_stage is None


Remark = tuple[str, Callable[[Contender], bool], Callable[[Contender], str]]
_REMARKS: tuple[Remark, ...] = (
    ("smoke_test", lambda c: c.fit.label == "smoke test", _smoke_test),
    ("between_smoke_test_and_production", lambda c: c.fit.label == "between", _between),
    ("mixed_gpus", lambda c: c.candidate.pool.is_mixed, _mixed),
    (
        "tensor_group_leaves_island",
        lambda c: c.splits_islands,
        lambda _: "a tensor group spans NVLink islands and all-reduces over PCIe",
    ),
    ("batch_limits_lowered", lambda c: c.fit.batch_lowered, _lowered),
    ("uneven_stages", _division_is_ours, _uneven),
    (
        "data_parallel_attention",
        lambda c: c.layout.data > 1,
        lambda _: "deploy does not apply data-parallel attention yet; start such an engine by hand",
    ),
)
