"""What the engine keeps beside model and activations: its runner's state, CUDA graphs, libraries' own memory.

CUDA contexts and NCCL's first buffers are not in it: the engine takes them before its first look at the free
memory, so they come out of the share that utilisation leaves unreserved (`Worker.init_device`).
"""

from __future__ import annotations

from orchestrator.catalog.gpus import GpuSpec
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.engine_args import DTYPE_BYTES, ResolvedArgs
from orchestrator.memory.kv_cache import cache_groups
from orchestrator.memory.layout import Layout
from orchestrator.units import KIB, MIB

# One layer in one captured graph. A published start of vLLM took 1.10 GiB by its own estimate for Qwen3-235B,
# whose 94 layers are captured 102 times: 51 sizes, each as a piecewise and as a full graph.
GRAPH_LAYER_BYTES = 120 * KIB
# `profile_cudagraph_memory` of vllm/v1/worker/gpu_model_runner.py counts no graph below this.
SMALLEST_GRAPH_BYTES = 1 * MIB
# Kernels loaded on first use and the workspaces of cuBLAS, which grow between the engine's two looks at the
# free memory. A published start of vLLM 0.31 (Llama 3.1 8B, one A100 80 GB) consumed 15.26 GiB, of which the
# model was 15.0.
RUNTIME_BYTES = 256 * MIB
# Channels that NCCL opens when a group of more than one rank first communicates: an assumption.
COMMUNICATOR_BYTES = 128 * MIB
# VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE of vllm/envs.py; FlashInfer is the default on data-centre Blackwell.
FLASHINFER_WORKSPACE_BYTES = 394 * MIB


def overhead_bytes(spec: ModelSpec, layout: Layout, layers: tuple[int, int], args: ResolvedArgs, gpu: GpuSpec) -> int:
    """Bytes on one rank of the stage that holds the layers [first, end)."""
    if gpu.vendor == "cpu":
        return 0
    graphs = graph_bytes(args, layers[1] - layers[0])
    return graphs + _runner_bytes(spec, layout, layers, args) + _library_bytes(layout, gpu)


def graph_bytes(args: ResolvedArgs, num_layers: int) -> int:
    """CUDA graphs of every batch size, piecewise and full (`cudagraph_mode` FULL_AND_PIECEWISE)."""
    graph = max(num_layers * GRAPH_LAYER_BYTES, SMALLEST_GRAPH_BYTES)
    sizes = num_graph_sizes(args.max_cudagraph_capture_size)
    return (sizes + min(sizes, num_graph_sizes(args.max_num_seqs))) * graph


def num_graph_sizes(largest: int) -> int:
    """Batch sizes captured up to `largest`: 1, 2, 4, by eights below 256, then by sixteens."""
    small = sum(size <= largest for size in (1, 2, 4))
    by_eight = len(range(8, min(largest + 1, 256), 8))
    return small + by_eight + len(range(256, largest + 1, 16))


def _runner_bytes(spec: ModelSpec, layout: Layout, layers: tuple[int, int], args: ResolvedArgs) -> int:
    """Persistent tensors of the model runner (vllm/v1/worker/gpu/)."""
    total = _block_table_bytes(spec, layout, args)
    if layers[0] > 0:
        # Hidden states and residual received from the stage before.
        total += 2 * args.max_num_batched_tokens * spec.hidden_size * DTYPE_BYTES[args.dtype]
    if layers[1] == spec.num_layers:
        total += _penalty_bytes(spec, args)
    return total


def _block_table_bytes(spec: ModelSpec, layout: Layout, args: ResolvedArgs) -> int:
    """For every group of layers two tables of int32: the runner's own and the one a pass reads."""
    blocks = -(-args.max_model_len // (args.block_size * layout.decode_context))
    return len(cache_groups(spec, layout, args)) * 2 * args.max_num_seqs * blocks * 4


def _penalty_bytes(spec: ModelSpec, args: ResolvedArgs) -> int:
    """`PenaltiesState` of vllm/v1/worker/gpu/sample/penalties.py: a count and a bit per sequence and word."""
    words = spec.vocab_size + -(-spec.vocab_size // 32)
    return args.max_num_seqs * words * 4


def _library_bytes(layout: Layout, gpu: GpuSpec) -> int:
    expert_group = layout.expert and layout.data > 1
    groups = sum((layout.tensor > 1, layout.pipeline > 1, layout.data > 1, expert_group))
    capability = gpu.cuda_capability
    flashinfer = capability is not None and capability[0] == 10
    return RUNTIME_BYTES + groups * COMMUNICATOR_BYTES + flashinfer * FLASHINFER_WORKSPACE_BYTES
