"""The memory of one rank: weights, activations, overhead, the engine's KV pool, and what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.engine_args import EngineArgs, ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.overhead import activation_bytes, overhead_bytes
from orchestrator.memory.shards import Cut, WeightTotals, cut_of, stage_totals


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes of one GPU; the five parts add up to its capacity.

    Where weights, activations and overhead leave no pool, `kv_cache_bytes` is negative by what is missing.
    """

    weights_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    overhead_bytes: int
    free_bytes: int
    capacity_bytes: int

    @property
    def missing_bytes(self) -> int:
        return max(0, -self.kv_cache_bytes)


def rank_budget(
    spec: ModelSpec,
    layout: Layout,
    stage: int,
    tensor_rank: int,
    data_rank: int,
    engine: EngineArgs,
    gpu: GpuSpec,
) -> MemoryBudget:
    """The budget of one rank by vLLM 0.29's rule (`Worker.determine_available_memory`).

    Pool = utilisation × capacity − weights − activations − overhead; the rest of the capacity stays free.
    Raises `ConfigError` for a split the engine could not make.
    """
    cut = cut_of(spec, layout, tensor_rank, data_rank)
    layers = layout.stage_layers(spec.num_layers)[stage]
    return _budget(spec, layout, layers, cut, engine, gpu)


@lru_cache(maxsize=65536)
def _budget(
    spec: ModelSpec,
    layout: Layout,
    layers: tuple[int, int],
    cut: Cut,
    engine: EngineArgs,
    gpu: GpuSpec,
) -> MemoryBudget:
    args = engine.resolve(spec, layout, gpu)
    weights = stage_totals(spec, args.quantization, args.dtype, layers, cut).size_bytes
    activation = activation_bytes(spec, layers, args)
    overhead = overhead_bytes(layout, args, gpu)
    kv_cache = _pool_bytes(gpu, args, weights + activation + overhead)
    return MemoryBudget(
        weights_bytes=weights,
        kv_cache_bytes=kv_cache,
        activation_bytes=activation,
        overhead_bytes=overhead,
        free_bytes=gpu.memory_bytes - weights - activation - overhead - kv_cache,
        capacity_bytes=gpu.memory_bytes,
    )


def _pool_bytes(gpu: GpuSpec, args: ResolvedArgs, taken_bytes: int) -> int:
    if args.args.kv_cache_memory_bytes is not None:
        return args.args.kv_cache_memory_bytes
    requested = math.ceil(gpu.memory_bytes * args.gpu_memory_utilization)
    return requested - taken_bytes


def rank_parameters(
    spec: ModelSpec, layout: Layout, stage: int, tensor_rank: int = 0, data_rank: int = 0
) -> int:
    """Parameters of one rank, as vLLM's model class would have them unquantised."""
    cut = cut_of(spec, layout, tensor_rank, data_rank)
    layers = layout.stage_layers(spec.num_layers)[stage]
    return stage_totals(spec, None, spec.dtype, layers, cut).parameters


def checkpoint_totals(spec: ModelSpec) -> WeightTotals:
    """The whole model on one rank: parameters, and bytes as its checkpoint stores them."""
    cut = Cut(local_experts=spec.moe.num_experts if spec.moe else 0)
    return stage_totals(spec, spec.quantization, spec.dtype, (0, spec.num_layers), cut)
