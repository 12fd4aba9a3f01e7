"""What to say where nothing fits: the nearest miss, and the smallest changes that would do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.cluster.snapshot import ClusterSnapshot, NodeSnapshot
from orchestrator.errors import NoFeasiblePlan
from orchestrator.planner.candidate import Outcome
from orchestrator.planner.legality import Refusal
from orchestrator.planner.rejected import parallelism_of
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.search import Found, nearest_miss, search

# Nodes tried as "this many more would do".
MORE_NODES = (1, 2, 4, 8, 16, 32)
SHORTEST_CONTEXT = 1024


def no_feasible_plan(request: PlanRequest, found: Found) -> NoFeasiblePlan:
    """The error: one line with the nearest miss and the ways out, and a reason for each candidate."""
    reasons = tuple(_line(request, outcome) for outcome in found.refused)
    miss = nearest_miss(request, found)
    what = f"no layout of {request.spec.name} fits {request.cluster.describe()}"
    if miss is None:
        first = f"; first reason: {reasons[0]}" if reasons else ": no free GPU may be used"
        return NoFeasiblePlan(f"{what}{first}", reasons)
    outcome, refusal = miss
    label = parallelism_of(outcome.candidate.layout, request.replicas).label()
    ways = "; ".join(ways_out(request)) or "nothing that was tried; --what-if lists GPUs that would do"
    return NoFeasiblePlan(f"{what}; nearest is {label}: {refusal.reason}. It would fit with {ways}", reasons)


def _line(request: PlanRequest, outcome: Outcome) -> str:
    label = parallelism_of(outcome.candidate.layout, request.replicas).label()
    reason = outcome.result.reason if isinstance(outcome.result, Refusal) else "fits"
    return f"{label} on {outcome.candidate.pool.describe()}: {reason}"


def ways_out(request: PlanRequest) -> Iterator[str]:
    """Changes that were tried and found to work, one sentence each."""
    for sentence, changed in _engine_changes(request):
        if _fits(changed):
            yield sentence
    yield from _shorter_context(request)
    yield from _more_nodes(request)


def _fits(request: PlanRequest) -> bool:
    return search(request).winner is not None


def _engine_changes(request: PlanRequest) -> Iterator[tuple[str, PlanRequest]]:
    engine = request.engine
    if request.quantization is None:
        fp8 = replace(engine, quantization="fp8", dtype="auto")
        yield "FP8 weights (quantization fp8, or a checkpoint stored in FP8)", replace(request, engine=fp8)
    if not engine.kv_cache_dtype.startswith("fp8"):
        yield "an FP8 KV cache", replace(request, engine=replace(engine, kv_cache_dtype="fp8"))


def _shorter_context(request: PlanRequest) -> Iterator[str]:
    """The longest halving of the context that fits."""
    length = request.engine.max_model_len or request.spec.max_model_len
    while length // 2 >= SHORTEST_CONTEXT:
        length //= 2
        if _fits(replace(request, engine=replace(request.engine, max_model_len=length))):
            yield f"a maximum length of {length:,} tokens"
            return


def _more_nodes(request: PlanRequest) -> Iterator[str]:
    """Copies of the node with the most GPU memory."""
    cluster = request.cluster
    node = max(cluster.nodes, key=lambda node: node.num_gpus * node.gpu_memory_bytes)
    free = replace(request, constraints=request.constraints.model_copy(update={"gpus": None}))
    enough = next((count for count in MORE_NODES if _fits_with(free, node, count)), None)
    if enough is None:
        return
    few = max((count for count in MORE_NODES if count < enough), default=0)
    count = _fewest(free, node, few, enough)
    yield f"{count} more {'node' if count == 1 else 'nodes'} of {node.num_gpus} × {node.gpu_type}"


def _fewest(request: PlanRequest, node: NodeSnapshot, few: int, enough: int) -> int:
    """The smallest number of further nodes that fits, between one that does not and one that does."""
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if _fits_with(request, node, middle) else (middle, enough)
    return enough


def _fits_with(request: PlanRequest, node: NodeSnapshot, count: int) -> bool:
    return _fits(replace(request, cluster=_with_copies(request.cluster, node, count)))


def _with_copies(cluster: ClusterSnapshot, node: NodeSnapshot, count: int) -> ClusterSnapshot:
    copies = tuple(
        replace(node, name=f"{node.name}+{number}", gpus_in_use=frozenset()) for number in range(1, count + 1)
    )
    return replace(cluster, nodes=(*cluster.nodes, *copies))
