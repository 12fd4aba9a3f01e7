"""Activations, CUDA graphs and communication buffers: a stated model, each constant with its source."""

from __future__ import annotations

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.engine_args import DTYPE_BYTES, ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.units import GIB, MIB

# One CUDA graph keeps at least this much (`profile_cudagraph_memory` of vllm/v1/worker/gpu_model_runner.py).
GRAPH_BYTES = 1 * MIB
# NCCL's channels and the workspaces of attention backends, once per communicator.
COMMUNICATOR_BYTES = GIB // 4


def activation_bytes(spec: ModelSpec, layers: tuple[int, int], args: ResolvedArgs) -> int:
    """Peak of a forward pass over the largest batch, and of the logits where the stage has the head."""
    token_bytes = DTYPE_BYTES[args.dtype]
    experts = spec.moe.top_k if spec.moe else 1
    hidden = args.max_num_batched_tokens * spec.hidden_size * token_bytes * (4 + experts)
    logits = args.max_num_seqs * spec.vocab_size * 4 if layers[1] == spec.num_layers else 0
    return max(hidden, logits)


def overhead_bytes(layout: Layout, args: ResolvedArgs, gpu: GpuSpec) -> int:
    """What lies outside torch's allocator, and CUDA graphs."""
    if gpu.vendor == "cpu":
        return 0
    groups = sum(size > 1 for size in (layout.tensor, layout.pipeline, layout.data))
    return groups * COMMUNICATOR_BYTES + args.max_cudagraph_capture_size // 8 * GRAPH_BYTES
