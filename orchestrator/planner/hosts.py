"""Whether the machines themselves have what the plan's ranks need of them: warnings, where their facts are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from orchestrator.cluster.snapshot import NodeSnapshot
from orchestrator.memory.budget import checkpoint_totals
from orchestrator.memory.host import HostNeed, host_need
from orchestrator.plan import PlannedRank, PlanWarning
from orchestrator.planner.request import PlanRequest
from orchestrator.units import GIB, format_bytes


def host_warnings(request: PlanRequest, ranks: Sequence[PlannedRank]) -> tuple[PlanWarning, ...]:
    """`disk_short` and `host_memory_short`, one of each for all the nodes that it is true of."""
    needs = {node: _need(request, number) for node, number in Counter(rank.node for rank in ranks).items()}
    known = [(node, needs[node.name]) for node in request.cluster.nodes if node.host is not None and node.name in needs]
    short_of_disk = [(node, need) for node, need in known if _lacks(_disk(node), need.disk_bytes)]
    short_of_memory = [(node, need) for node, need in known if _lacks(_memory(node), need.memory_bytes)]
    return (*_disk_warning(short_of_disk, request), *_memory_warning(short_of_memory))


def host_source(request: PlanRequest, ranks: Sequence[PlannedRank]) -> dict[str, str]:
    """What the plan says of the hosts, whether or not their facts are known."""
    number = max(Counter(rank.node for rank in ranks).values())
    need = _need(request, number)
    text = (
        f"a node of {number} ranks needs {format_bytes(need.disk_bytes)} of disk for the whole checkpoint and at least "
        f"{format_bytes(need.memory_bytes)} of memory, {format_bytes(need.shared_memory_bytes)} of it in /dev/shm "
        "(vLLM 0.29.0's loader and message queues)"
    )
    return {"hosts": text}


def _need(request: PlanRequest, num_ranks: int) -> HostNeed:
    checkpoint_bytes = checkpoint_totals(request.spec).size_bytes
    return host_need(num_ranks, checkpoint_bytes, int(request.engine.cpu_offload_gb * GIB))


def _disk(node: NodeSnapshot) -> int | None:
    return node.host.disk_bytes if node.host else None


def _memory(node: NodeSnapshot) -> int | None:
    return node.host.memory_bytes if node.host else None


def _lacks(there_bytes: int | None, needed_bytes: int) -> bool:
    return there_bytes is not None and there_bytes < needed_bytes


Short = Sequence[tuple[NodeSnapshot, HostNeed]]


def _disk_warning(short: Short, request: PlanRequest) -> Iterator[PlanWarning]:
    if not short:
        return
    node, need = min(short, key=lambda row: _disk(row[0]) or 0)
    measured = node.host is not None and node.host.measured
    way_out = (
        f"that is the disk of Ray's own files, as the node sees it: fine where HF_HOME lies on another, or where "
        f"`orchestrator pull {request.spec.name} --nodes --check-only` finds the weights there already"
        if measured
        else "name a larger disk with HF_HOME on that node"
    )
    yield PlanWarning(
        code="disk_short",
        message=f"{_names(short)}: {format_bytes(_disk(node) or 0)} of disk {'free' if measured else 'there'}, and the "
        f"whole checkpoint takes {format_bytes(need.disk_bytes)} on every node; {way_out}",
    )


def _memory_warning(short: Short) -> Iterator[PlanWarning]:
    if not short:
        return
    node, need = min(short, key=lambda row: _memory(row[0]) or 0)
    yield PlanWarning(
        code="host_memory_short",
        message=f"{_names(short)}: {format_bytes(_memory(node) or 0)} of host memory, and its ranks need at least "
        f"{format_bytes(need.memory_bytes)}, {format_bytes(need.shared_memory_bytes)} of it in /dev/shm; free some, "
        "or put fewer ranks on the node",
    )


def _names(short: Short) -> str:
    more = f" and {len(short) - 1} more" if len(short) > 1 else ""
    return f"{short[0][0].name}{more}"
