"""What a host needs: the whole checkpoint on every node, memory for processes and not for weights."""

from __future__ import annotations

from orchestrator.memory.host import ANSWER_RING_BYTES, BROADCAST_RING_BYTES, host_need
from orchestrator.units import GIB, MIB


def test_every_node_needs_the_whole_checkpoint_however_few_ranks_it_has() -> None:
    assert host_need(1, 1000 * GIB).disk_bytes == host_need(8, 1000 * GIB).disk_bytes == 1000 * GIB


def test_weights_are_mapped_and_take_no_memory_but_offloaded_layers_do() -> None:
    assert host_need(8, GIB).memory_bytes == host_need(8, 1000 * GIB).memory_bytes
    assert host_need(8, GIB, 4 * GIB).memory_bytes == host_need(8, GIB).memory_bytes + 32 * GIB


def test_shared_memory_is_a_ring_for_all_ranks_and_one_for_each() -> None:
    assert (BROADCAST_RING_BYTES, ANSWER_RING_BYTES) == (160 * MIB, 240 * MIB)
    assert host_need(8, 0).shared_memory_bytes == 160 * MIB + 8 * 240 * MIB
    assert host_need(8, 0).memory_bytes > host_need(8, 0).shared_memory_bytes
