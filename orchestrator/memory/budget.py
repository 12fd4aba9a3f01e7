"""The memory of one rank: weights, activations, overhead, the engine's KV pool, and what is left."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.activations import activation_bytes
from orchestrator.memory.buffers import buffer_bytes
from orchestrator.memory.engine_args import DTYPE_BYTES, EngineArgs, ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.overhead import overhead_bytes
from orchestrator.memory.shards import Cut, WeightTotals, cut_of, embedding_totals, prediction_totals, stage_totals
from orchestrator.units import GIB


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
    cut = replace(cut, padding=args.expert_padding)
    weights = _weights_bytes(spec, args, layers, cut)
    activation = activation_bytes(spec, layout, layers, cut, args)
    overhead = overhead_bytes(spec, layout, layers, args, gpu) + buffer_bytes(spec, args, layers, cut)
    kv_cache = _pool_bytes(gpu, args, weights + activation + overhead)
    return MemoryBudget(
        weights_bytes=weights,
        kv_cache_bytes=kv_cache,
        activation_bytes=activation,
        overhead_bytes=overhead,
        free_bytes=gpu.memory_bytes - weights - activation - overhead - kv_cache,
        capacity_bytes=gpu.memory_bytes,
    )


def _weights_bytes(spec: ModelSpec, args: ResolvedArgs, layers: tuple[int, int], cut: Cut) -> int:
    """All parameters that the engine loads on the rank, scales included."""
    loaded = replace(spec, vision=None) if args.args.language_model_only else spec
    size = stage_totals(loaded, args.quantization, args.dtype, layers, cut).size_bytes
    if args.args.num_speculative_tokens and layers[1] == spec.num_layers:
        size += prediction_totals(spec, args.quantization, args.dtype, cut).size_bytes
        # Stages do not share an embedding: the last of several has its own for predicting.
        size += embedding_totals(spec, args.dtype, cut).size_bytes if layers[0] else 0
    offloaded = int(args.args.cpu_offload_gb * GIB)
    return max(0, size - offloaded)


def _pool_bytes(gpu: GpuSpec, args: ResolvedArgs, taken_bytes: int) -> int:
    if args.args.kv_cache_memory_bytes is not None:
        return args.args.kv_cache_memory_bytes
    requested = math.ceil(gpu.memory_bytes * args.gpu_memory_utilization)
    return requested - taken_bytes


def rank_parameters(spec: ModelSpec, layout: Layout, stage: int, tensor_rank: int = 0, data_rank: int = 0) -> int:
    """Parameters of one rank, as vLLM's model class would have them unquantised."""
    cut = cut_of(spec, layout, tensor_rank, data_rank)
    layers = layout.stage_layers(spec.num_layers)[stage]
    return stage_totals(spec, None, spec.dtype, layers, cut).parameters


def checkpoint_totals(spec: ModelSpec) -> WeightTotals:
    """The whole model as its checkpoint stores it, multi-token-prediction layers included.

    Each of those has copies of the embedding and of the head in the checkpoint.
    """
    cut = Cut(local_experts=spec.moe.num_experts if spec.moe else 0)
    total = stage_totals(spec, spec.quantization, spec.dtype, (0, spec.num_layers), cut)
    total += prediction_totals(spec, spec.quantization, spec.dtype, cut)
    copies = spec.num_mtp_layers * 2 * spec.vocab_size * spec.hidden_size
    return total + WeightTotals(copies, copies * DTYPE_BYTES[spec.dtype])
