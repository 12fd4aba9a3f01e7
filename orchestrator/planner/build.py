"""From the winner of a search to the plan document: seats, exact budgets, engine arguments, reasons."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.budget import MemoryBudget, rank_budget
from orchestrator.memory.engine_args import EngineArgs, ResolvedArgs
from orchestrator.memory.kv_cache import kv_bytes_per_token, kv_capacity
from orchestrator.memory.layout import Layout
from orchestrator.plan import (
    Plan,
    PlannedCluster,
    PlannedEngine,
    PlannedKVCache,
    PlannedModel,
    PlannedRank,
    RankMemory,
)
from orchestrator.planner.counts import active_params, total_params
from orchestrator.planner.hosts import host_source, host_warnings
from orchestrator.planner.notices import warnings_of
from orchestrator.planner.placement import Replica, Seat
from orchestrator.planner.rejected import parallelism_of, rejected_of
from orchestrator.planner.request import ENGINE, PlanRequest
from orchestrator.planner.score import Contender
from orchestrator.planner.search import Found
from orchestrator.planner.seating import seats

# Always written, with the value the engine resolves them to; or no argument of vLLM's own.
_WRITTEN_APART = {
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_dtype",
    "num_speculative_tokens",
}


def build_plan(request: PlanRequest, found: Found, winner: Contender) -> Plan:
    """The plan of the winning contender, with every other candidate among the rejected."""
    ranks = _ranks(request, winner, _seats(winner))
    return Plan(
        model=_model(request, winner.fit.args),
        cluster=PlannedCluster.of(request.cluster),
        objective=request.objective,
        constraints=request.constraints,
        parallelism=parallelism_of(winner.layout, request.replicas),
        ranks=ranks,
        kv_cache=_kv_cache(request, winner, ranks),
        engine=_engine(request, winner),
        rejected=rejected_of(found, winner),
        warnings=(*warnings_of(winner), *host_warnings(request, ranks)),
        sources=_sources(request, winner) | host_source(request, ranks),
    )


def _model(request: PlanRequest, args: ResolvedArgs) -> PlannedModel:
    spec = request.spec
    return PlannedModel(
        name=spec.name,
        architecture=spec.architecture,
        checkpoint=request.checkpoint,
        quantization=args.quantization.weight_format if args.quantization else args.dtype,
        total_params=total_params(spec),
        active_params=active_params(spec),
    )


# --- ranks ---------------------------------------------------------------------------------------------


def _seats(winner: Contender) -> tuple[Replica, ...]:
    placed = seats(winner.candidate, winner.request.replicas)
    if placed is None:
        raise AssertionError(f"{winner.layout} was counted to fit and does not")
    return placed


def _ranks(request: PlanRequest, winner: Contender, replicas: tuple[Replica, ...]) -> tuple[PlannedRank, ...]:
    layout, spec = winner.layout, request.spec
    stages = layout.stage_layers(spec.num_layers)
    ranks = []
    for replica, groups in enumerate(replicas):
        for index, group in enumerate(groups):
            data_rank, stage = divmod(index, layout.pipeline)
            for tensor_rank, seat in enumerate(group):
                ranks.append(
                    PlannedRank(
                        rank=index * layout.tensor + tensor_rank,
                        replica=replica,
                        data_rank=data_rank,
                        tensor_rank=tensor_rank,
                        pipeline_stage=stage,
                        node=seat.node.name,
                        gpu_index=seat.gpu_index,
                        layers=stages[stage],
                        experts=_experts(spec, layout, stages[stage], tensor_rank, data_rank),
                        memory=_memory(winner, stage, tensor_rank, data_rank, seat),
                    )
                )
    return tuple(ranks)


@lru_cache(maxsize=4096)
def _experts(
    spec: ModelSpec, layout: Layout, layers: tuple[int, int], tensor_rank: int, data_rank: int
) -> tuple[int, ...] | None:
    """Experts by the model's own numbers; the engine's redundant copies begin again at expert 0."""
    if spec.moe is None or not layout.expert or not any(layer.sparse for layer in spec.layers[slice(*layers)]):
        return None
    held = layout.local_experts(spec.moe.num_experts, tensor_rank, data_rank)
    return tuple(expert % spec.moe.num_experts for expert in held)


def _memory(winner: Contender, stage: int, tensor_rank: int, data_rank: int, seat: Seat) -> RankMemory:
    gpu = winner.candidate.pool.gpu_of(seat.node.kind)
    spec, engine = winner.request.spec, winner.fit.engine
    return _rank_memory(rank_budget(spec, winner.layout, stage, tensor_rank, data_rank, engine, gpu))


@lru_cache(maxsize=4096)
def _rank_memory(budget: MemoryBudget) -> RankMemory:
    return RankMemory(**asdict(budget))


def _kv_cache(request: PlanRequest, winner: Contender, ranks: tuple[PlannedRank, ...]) -> PlannedKVCache:
    """By the pools of the ranks as placed; every replica can hold what the tightest one holds."""
    spec, layout, args = request.spec, winner.layout, winner.fit.args
    pools = [
        min(rank.memory.kv_cache_bytes for rank in ranks if rank.pipeline_stage == stage)
        for stage in range(layout.pipeline)
    ]
    capacity = kv_capacity(spec, layout, args, pools)
    return PlannedKVCache(
        dtype=args.kv_cache_dtype,
        bytes_per_token=tuple(kv_bytes_per_token(spec, layout, s, args) for s in range(layout.pipeline)),
        capacity_tokens=capacity.tokens,
        max_model_len=args.max_model_len,
        max_concurrent_sequences=min(capacity.max_sequences, args.max_num_seqs),
    )


# --- engine --------------------------------------------------------------------------------------------


def _engine(request: PlanRequest, winner: Contender) -> PlannedEngine:
    layout = winner.layout
    env = dict(request.env)
    if layout.layers_per_stage is not None:
        env["VLLM_PP_LAYER_PARTITION"] = ",".join(str(size) for size in layout.layers_per_stage)
    return PlannedEngine(name=ENGINE, version=request.engine_version, args=_engine_args(request, winner), env=env)


def _engine_args(request: PlanRequest, winner: Contender) -> dict[str, Any]:
    """vLLM's own names. Batch limits are written out: the engine's defaults depend on the GPU it sees."""
    layout, args = winner.layout, winner.fit.args
    always = {
        "model": request.checkpoint,
        "tensor_parallel_size": layout.tensor,
        "pipeline_parallel_size": layout.pipeline,
        "enable_expert_parallel": layout.expert,
        "gpu_memory_utilization": args.gpu_memory_utilization,
        "max_model_len": args.max_model_len,
        "max_num_seqs": args.max_num_seqs,
        "max_num_batched_tokens": args.max_num_batched_tokens,
        "kv_cache_dtype": winner.fit.engine.kv_cache_dtype,
        "enable_prefix_caching": request.enable_prefix_caching,
    }
    return always | _layout_args(layout) | _other_args(request, winner) | dict(request.verbatim)


def _layout_args(layout: Layout) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if layout.data > 1:
        args["data_parallel_size"] = layout.data
    if layout.decode_context > 1:
        args["decode_context_parallel_size"] = layout.decode_context
    if layout.expert_placement != "linear":
        args["expert_placement_strategy"] = layout.expert_placement
    return args


def _other_args(request: PlanRequest, winner: Contender) -> dict[str, Any]:
    """Arguments that are only written where they differ from what the engine does anyway."""
    plain, given = asdict(EngineArgs()), asdict(winner.fit.engine)
    changed = {name: value for name, value in given.items() if value != plain[name] and name not in _WRITTEN_APART}
    return changed | ({"trust_remote_code": True} if request.trust_remote_code else {})


def _sources(request: PlanRequest, winner: Contender) -> dict[str, str]:
    sources = {"model": request.spec.source, "cluster": request.cluster.source}
    for kind in winner.candidate.pool.kinds:
        gpu = winner.candidate.pool.gpu_of(kind)
        basis = f"{gpu.product}, memory as {gpu.memory_basis}"
        parts = [basis, gpu.note, *gpu.sources]
        sources[f"gpu {kind.gpu_type}"] = "; ".join(part for part in parts if part)
    for number, text in enumerate(request.cluster.assumptions, start=1):
        sources[f"assumption {number}"] = text
    return sources | dict(request.sources)
