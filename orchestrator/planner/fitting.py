"""Whether a layout fits a kind of GPU, by the exact budget of its ranks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.budget import MemoryBudget, rank_budget
from orchestrator.memory.engine_args import EngineArgs, ResolvedArgs
from orchestrator.memory.kv_cache import KvCapacity, kv_capacity
from orchestrator.memory.layout import Layout
from orchestrator.planner.legality import Refusal
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.traffic import model_bytes
from orchestrator.units import format_bytes

# The KV pool as a share of everything else. Production adds 20 to 40 % for KV cache and concurrency to what
# the weights need: with less than the first a plan is a smoke test, from the second on it is for production.
SMOKE_TEST_BELOW = 0.20
PRODUCTION_FROM = 0.40

# The kinds of GPU that each stage runs on.
StageGpus = tuple[tuple[GpuSpec, ...], ...]
# The budget of a stage's tightest rank, and the GPU it is on.
Stage = tuple[MemoryBudget, GpuSpec]


@dataclass(frozen=True)
class Fit:
    """A layout on a kind of GPU: budgets of the tightest rank of each stage, and what their pools hold."""

    layout: Layout
    engine: EngineArgs
    budgets: tuple[MemoryBudget, ...]
    capacity: KvCapacity
    args: ResolvedArgs
    # Whether the batch limits had to be lower than the engine's own defaults.
    batch_lowered: bool = False

    @property
    def headroom(self) -> float:
        return min(headroom(budget) for budget in self.budgets)

    @property
    def label(self) -> str:
        return label_of(self.headroom)


def headroom(budget: MemoryBudget) -> float:
    """The KV pool as a share of weights, activations and overhead."""
    taken = budget.weights_bytes + budget.activation_bytes + budget.overhead_bytes
    return budget.kv_cache_bytes / max(1, taken)


def label_of(share: float) -> str:
    """`smoke test`, `between` or `production`."""
    if share < SMOKE_TEST_BELOW:
        return "smoke test"
    return "between" if share < PRODUCTION_FROM else "production"


def weights_alone(request: PlanRequest, layout: Layout, gpus: tuple[GpuSpec, ...]) -> Refusal | None:
    """A quick no where the weights, split perfectly evenly, are already too much for the largest GPU."""
    gpu = max(gpus, key=lambda gpu: (gpu.memory_bytes, gpu.name))
    usable = int(gpu.memory_bytes * request.engine.gpu_memory_utilization)
    args = request.engine.resolve(request.spec, layout, gpu)
    share = sum(model_bytes(request.spec, args.quantization, args.dtype)) // layout.world_size
    if share < usable or request.engine.kv_cache_memory_bytes is not None:
        return None
    return Refusal(
        "weights_do_not_fit",
        f"the weights are {format_bytes(share)} a rank, split evenly over {layout.world_size}, and "
        f"{request.engine.gpu_memory_utilization:g} of one {gpu.name} is {format_bytes(usable)}: at least "
        f"{format_bytes(share - usable)} short",
        max(1, share - usable),
    )


def fit(request: PlanRequest, layout: Layout, gpus: StageGpus) -> Fit | Refusal:
    """The fit of a legal layout, each stage on the least of its `gpus`; or what is missing.

    Where the engine's own division of layers over stages does not serve, a custom one is tried; where its
    own batch limits leave too little, the lower ones it takes on small GPUs.
    """
    misses: list[Refusal] = []
    for engine in request.engines:
        result = _fit_length(request, layout, gpus, _one_batch(request.spec, layout, gpus, engine))
        if isinstance(result, Fit):
            return replace(result, batch_lowered=engine is not request.engine)
        misses.append(result)
    return min(misses, key=lambda miss: miss.missing_bytes or 0)


def _fit_length(request: PlanRequest, layout: Layout, gpus: StageGpus, engine: EngineArgs) -> Fit | Refusal:
    """With `max_model_len auto` the engine takes the longest context that fits."""
    result = _fit_stages(request, layout, gpus, engine)
    if isinstance(result, Fit) or not request.longest_context or not result.largest_context:
        return result
    return _fit_stages(request, layout, gpus, replace(engine, max_model_len=result.largest_context))


def _one_batch(spec: ModelSpec, layout: Layout, gpus: StageGpus, engine: EngineArgs) -> EngineArgs:
    """An engine has one batch limit, whatever its GPUs: the one of the smallest, where kinds are mixed."""
    kinds = {gpu for stage in gpus for gpu in stage}
    if len(kinds) == 1:
        return engine
    args = engine.resolve(spec, layout, min(kinds, key=lambda gpu: (gpu.memory_bytes, gpu.name)))
    return replace(engine, max_num_seqs=args.max_num_seqs, max_num_batched_tokens=args.max_num_batched_tokens)


def _fit_stages(request: PlanRequest, layout: Layout, gpus: StageGpus, engine: EngineArgs) -> Fit | Refusal:
    stages = _stages(request.spec, layout, gpus, engine)
    result = _judge(request, layout, engine, stages)
    if layout.pipeline == 1 or layout.layers_per_stage is not None or not _could_help(result, stages):
        return result
    balanced = rebalanced(request.spec, layout, gpus, engine, stages)
    if balanced.stage_layers(request.spec.num_layers) == layout.stage_layers(request.spec.num_layers):
        return result
    other = _judge(request, balanced, engine, _stages(request.spec, balanced, gpus, engine))
    return other if _is_better(other, result) else result


def _could_help(result: Fit | Refusal, stages: list[Stage]) -> bool:
    """Whether stages of equal weight would reach what these do not: a fit, or more than a smoke test."""
    pool_bytes = sum(budget.kv_cache_bytes for budget, _ in stages)
    if isinstance(result, Refusal):
        return pool_bytes > 0
    taken_bytes = sum(budget.capacity_bytes - budget.kv_cache_bytes - budget.free_bytes for budget, _ in stages)
    return result.headroom < SMOKE_TEST_BELOW <= pool_bytes / taken_bytes


def _is_better(other: Fit | Refusal, result: Fit | Refusal) -> bool:
    if isinstance(other, Refusal):
        return isinstance(result, Refusal) and (other.missing_bytes or 0) < (result.missing_bytes or 0)
    return isinstance(result, Refusal) or other.label != result.label


def _judge(
    request: PlanRequest,
    layout: Layout,
    engine: EngineArgs,
    stages: list[Stage],
) -> Fit | Refusal:
    for number, (budget, gpu) in enumerate(stages):
        if budget.kv_cache_bytes <= 0 or budget.free_bytes < 0:
            return _too_heavy(layout, number, budget, gpu, engine)
    budgets = tuple(budget for budget, _ in stages)
    weakest = min((gpu for _, gpu in stages), key=lambda gpu: (gpu.memory_bytes, gpu.name))
    args = engine.resolve(request.spec, layout, weakest)
    capacity = kv_capacity(request.spec, layout, args, [budget.kv_cache_bytes for budget in budgets])
    if not capacity.fits:
        return _too_long(args, capacity)
    if capacity.max_sequences < (request.constraints.concurrency or 1):
        return _too_many(request, args, capacity)
    return Fit(layout, engine, budgets, capacity, args)


def _stages(spec: ModelSpec, layout: Layout, gpus: StageGpus, engine: EngineArgs) -> list[Stage]:
    return [_tightest(spec, layout, stage, kinds, engine) for stage, kinds in enumerate(gpus)]


def _tightest(spec: ModelSpec, layout: Layout, stage: int, gpus: tuple[GpuSpec, ...], engine: EngineArgs) -> Stage:
    """Rank 0 of a stage holds at least as many experts as any other."""
    budgets = [(rank_budget(spec, layout, stage, 0, 0, engine, gpu), gpu) for gpu in gpus]
    return min(budgets, key=lambda pair: (pair[0].kv_cache_bytes, pair[1].name))


def _too_heavy(layout: Layout, stage: int, budget: MemoryBudget, gpu: GpuSpec, engine: EngineArgs) -> Refusal:
    where = f"a rank of stage {stage}" if layout.pipeline > 1 else "a rank"
    taken = budget.weights_bytes + budget.activation_bytes + budget.overhead_bytes
    need = f"{where} needs {format_bytes(taken)} ({format_bytes(budget.weights_bytes)} of weights)"
    if engine.kv_cache_memory_bytes is not None:
        pool, usable = engine.kv_cache_memory_bytes, gpu.memory_bytes
        have = f"{format_bytes(pool)} of KV cache were asked for, and one {gpu.name} is {format_bytes(usable)}"
    else:
        pool, usable = 0, gpu.memory_bytes - budget.free_bytes
        have = f"{engine.gpu_memory_utilization:g} of one {gpu.name} is {format_bytes(usable)}"
    missing = max(1, taken + pool - usable)
    return Refusal("weights_do_not_fit", f"{need}, and {have}: {format_bytes(missing)} short", missing)


def _too_long(args: ResolvedArgs, capacity: KvCapacity) -> Refusal:
    return Refusal(
        "context_does_not_fit",
        f"one request of {args.max_model_len:,} tokens needs {format_bytes(capacity.needed_bytes)} of KV "
        f"cache on the tightest rank, which has {format_bytes(capacity.available_bytes)}: "
        f"{format_bytes(capacity.missing_bytes)} short; {capacity.largest_context:,} tokens would fit",
        capacity.missing_bytes,
        capacity.largest_context,
    )


def _too_many(request: PlanRequest, args: ResolvedArgs, capacity: KvCapacity) -> Refusal:
    wanted = request.constraints.concurrency or 1
    missing = capacity.needed_bytes * wanted - capacity.available_bytes
    return Refusal(
        "concurrency_does_not_fit",
        f"{wanted} requests of {args.max_model_len:,} tokens were asked for at once, and the KV cache holds "
        f"{capacity.max_sequences}: {format_bytes(missing)} short on the tightest rank",
        missing,
    )


# --- uneven stages -------------------------------------------------------------------------------------


def rebalanced(spec: ModelSpec, layout: Layout, gpus: StageGpus, engine: EngineArgs, stages: list[Stage]) -> Layout:
    """The division of layers whose tightest stage has most room, layer by layer from the engine's own.

    Stages hold consecutive layers, so giving a layer from one stage to another shifts those between.
    """
    sizes = [end - first for first, end in layout.stage_layers(spec.num_layers)]
    room = [_room(stage, size) for stage, size in zip(stages, sizes, strict=True)]
    for _ in range(spec.num_layers):
        donor, taker = room.index(min(room)), room.index(max(room))
        if sizes[donor] == 1 or room[taker] <= 0:
            break
        tried = [size + (stage == taker) - (stage == donor) for stage, size in enumerate(sizes)]
        custom = replace(layout, layers_per_stage=tuple(tried))
        # The two that change are looked at first: mostly they tell that nothing is gained.
        ends = [_room(_tightest(spec, custom, n, gpus[n], engine), tried[n]) for n in (donor, taker)]
        if min(ends) <= min(room):
            break
        after = [_room(*pair) for pair in zip(_stages(spec, custom, gpus, engine), tried, strict=True)]
        if min(after) <= min(room):
            break
        sizes, room = tried, after
    return replace(layout, layers_per_stage=tuple(sizes))


def _room(stage: Stage, num_layers: int) -> float:
    """KV pool for each layer of a stage: what decides how many tokens the stage holds."""
    pool_bytes = stage[0].kv_cache_bytes
    return pool_bytes / num_layers if pool_bytes > 0 else float(pool_bytes)
