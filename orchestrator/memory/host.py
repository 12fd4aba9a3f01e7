"""What a host itself must have for the ranks it carries: disk, memory and shared memory. Pure.

Every figure names where it comes from; together they are a lower bound, since CUDA's own share of host memory is in
none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.units import GIB, MIB

# The engine library itself, loaded in three processes (server, core, one rank), beside weights and cache; each further
# rank is a process more. Measured as the sum of the processes' proportional set sizes with smol-moe on CPU.
ENGINE_BASE_BYTES = 2 * GIB
ENGINE_RANK_BYTES = GIB // 2
# vLLM 0.29.0, in /dev/shm: on the node of the engine's core one ring of ten chunks for all its ranks
# (VLLM_MQ_MAX_CHUNK_BYTES_MB, 16) and one of ten chunks of 24 MiB for each rank's answers (`RayExecutorV2`,
# `MessageQueue`). A ring's whole length must be free when it is made (`check_shm_free_space`).
BROADCAST_RING_BYTES = 10 * 16 * MIB
ANSWER_RING_BYTES = 10 * 24 * MIB


@dataclass(frozen=True)
class HostNeed:
    """Bytes that one node needs.

    disk_bytes: the whole checkpoint, whatever part of the model its ranks hold. vLLM's loader has every rank go through
    every file that the index names and skips tensors only inside them (`safetensors_weights_iterator`), so a missing
    file is an error on every node.

    memory_bytes: without the weights. They are mapped from their files and copied to the GPU tensor by tensor
    (`safe_open`, load strategy `lazy`, the default), so what they take is page cache, which the kernel takes back.
    Layers moved to the host (`cpu_offload_gb`) are pinned there and do count.

    shared_memory_bytes: the part of /dev/shm that the engine needs at most, counted in memory_bytes too.
    """

    disk_bytes: int
    memory_bytes: int
    shared_memory_bytes: int


def host_need(num_ranks: int, checkpoint_bytes: int, offloaded_bytes: int = 0) -> HostNeed:
    """For a node with `num_ranks` ranks, each with `offloaded_bytes` moved to the host.

    Every node is taken for the one that carries the engine's core: which one it is, Ray decides.
    """
    shared = BROADCAST_RING_BYTES + num_ranks * ANSWER_RING_BYTES
    processes = ENGINE_BASE_BYTES + num_ranks * ENGINE_RANK_BYTES
    return HostNeed(checkpoint_bytes, processes + shared + num_ranks * offloaded_bytes, shared)
