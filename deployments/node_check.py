"""What must hold on every rank's node before its engine begins: checked there, told in a line that names the rank."""

from __future__ import annotations

import os

from orchestrator.units import MIB, format_bytes

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where the kernel offers it; nothing is written here
# The ring through which vLLM's executor talks to its ranks: ten chunks of 16 MiB
# (`VLLM_MQ_MAX_CHUNK_BYTES_MB`, `MessageQueue(max_chunks=10)`), beside what NCCL and Ray's object store take.
SHARED_MEMORY_BYTES = 192 * MIB


def free_shared_memory_bytes() -> int:
    """What is left of this node's shared memory."""
    found = os.statvfs(SHARED_MEMORY)
    return found.f_bavail * found.f_frsize


def check_node(who: str, engine_version: str, wanted_version: str, free_bytes: int) -> None:
    """Raises `RuntimeError` for a node that cannot take part.

    `who` names the rank and its node; `wanted_version` is the vLLM of the replica that starts the ranks.
    """
    if engine_version != wanted_version:
        raise RuntimeError(
            f"{who} has vLLM {engine_version}, and the replica has {wanted_version}; install the same on every node"
        )
    if free_bytes < SHARED_MEMORY_BYTES:
        raise RuntimeError(
            f"{who} has {format_bytes(free_bytes)} of shared memory left in {SHARED_MEMORY}, and at least "
            f"{format_bytes(SHARED_MEMORY_BYTES)} are needed; free some or enlarge it (in containers: --shm-size=8g)"
        )
