"""A running Ray cluster as a snapshot: what its nodes really have, and what is taken.

Ray has one label for all variants of a card, so the GPU's own name and memory decide, as the driver
reports them through the dashboard's agents. Where no agent sees a GPU (an emulated cluster) the label
has to do, and the snapshot says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.catalog.gpus import GpuSpec, GpuTable, shipped_gpus
from orchestrator.cluster.labels import node_name
from orchestrator.cluster.snapshot import ClusterSnapshot, HostFacts, NodeSnapshot
from orchestrator.errors import ClusterUnavailable
from orchestrator.units import MIB

# A driver with nothing running takes less than this share of a GPU.
IDLE_SHARE = 0.05
# Drivers of different versions report totals this close to one another.
SAME_MEMORY_SHARE = 0.02
_ACCELERATOR = "accelerator_type:"
_ZONE = "ray.io/availability-zone"
_LABEL = "ray.io/accelerator-type"


@dataclass(frozen=True)
class _Seen:
    """One node, and the remarks its reading left."""

    node: NodeSnapshot
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """GPUs by node that deployed models hold: `by_others`, and `by_itself`, which the model to be planned gives up."""

    by_others: Mapping[str, Collection[int]] = field(default_factory=dict)
    by_itself: Mapping[str, Collection[int]] = field(default_factory=dict)

    def in_use(self, node: str, measured: Collection[int]) -> frozenset[int]:
        """The GPUs of a node that are not to be had, `measured` being those that hold somebody's memory."""
        return frozenset((set(measured) - set(self.by_itself.get(node, ()))) | set(self.by_others.get(node, ())))


def snapshot_from(
    name: str,
    agents: Sequence[Mapping[str, Any]],
    states: Sequence[Mapping[str, Any]],
    held: Held = Held(),
    gpus: GpuTable | None = None,
) -> ClusterSnapshot:
    """A snapshot from the dashboard's two views of nodes.

    `agents` are the rows of `/nodes?view=summary`: what each node's agent measured. `states` are those of
    `/api/v0/nodes?detail=true`: resources and labels. GPUs are looked up in `gpus`, those shipped here by default.
    Raises `ClusterUnavailable` where no node has a GPU.
    """
    table = gpus or shipped_gpus()
    measured = {row.get("raylet", {}).get("nodeId"): row for row in agents}
    alive = sorted((row for row in states if row["state"] == "ALIVE"), key=_name)
    seen = [node for row in alive for node in _node(row, measured.get(row["node_id"], {}), held, table)]
    if not seen:
        raise ClusterUnavailable(f"no live node of {name} has a GPU")
    remarks = dict.fromkeys(remark for node in seen for remark in node.remarks)
    return ClusterSnapshot(
        name=name,
        nodes=tuple(node.node for node in seen),
        source="live Ray cluster",
        assumptions=tuple(remarks),
        gpus=table,
    )


def _name(row: Mapping[str, Any]) -> str:
    return node_name(row.get("labels"), str(row["node_ip"]))


def _node(row: Mapping[str, Any], agent: Mapping[str, Any], held: Held, table: GpuTable) -> Iterator[_Seen]:
    num_gpus = int(row["resources_total"].get("GPU", 0))
    if num_gpus == 0:
        return
    gpus = agent.get("gpus") or []
    spec, memory_bytes, remarks = _measured(gpus, table) if gpus else _labelled(row, table)
    name = _name(row)
    node = NodeSnapshot(
        name=name,
        gpu_type=spec.name,
        num_gpus=num_gpus,
        gpu_memory_bytes=memory_bytes,
        interconnect="nvlink" if spec.has_nvlink else "pcie",
        gpus_in_use=held.in_use(name, [gpu["index"] for gpu in gpus if gpu["index"] < num_gpus and _is_taken(gpu)]),
        failure_domain=str((row.get("labels") or {}).get(_ZONE, "")),
        host=_host(agent),
    )
    yield _Seen(node, remarks)


def _host(agent: Mapping[str, Any]) -> HostFacts | None:
    """Memory and disk that are free now; the agent reports nothing in the first seconds of a node's life.

    `mem` is total, available, percent, used; `disk` holds total, used, free and percent for / and for the disk of Ray's
    files, and inside a Kubernetes pod a dummy of one byte.
    """
    free = [int(disk["free"]) for disk in (agent.get("disk") or {}).values() if int(disk["total"]) > 1]
    memory = agent.get("mem") or ()
    if not free and not memory:
        return None
    return HostFacts(int(memory[1]) if memory else None, max(free, default=None), measured=True)


def _is_taken(gpu: Mapping[str, Any]) -> bool:
    return bool(gpu["memoryUsed"] > IDLE_SHARE * gpu["memoryTotal"])


def _measured(gpus: Sequence[Mapping[str, Any]], table: GpuTable) -> tuple[GpuSpec, int, tuple[str, ...]]:
    """By the GPU's own name and memory; the smallest, should they differ."""
    smallest = min(gpus, key=lambda gpu: (gpu["memoryTotal"], gpu["index"]))
    spec = table.resolve(str(smallest["name"]))
    driver_bytes = int(smallest["memoryTotal"]) * MIB
    usual_bytes = spec.driver_memory_bytes or driver_bytes
    if abs(driver_bytes - usual_bytes) <= SAME_MEMORY_SHARE * usual_bytes:
        return spec, spec.memory_bytes, ()
    memory_bytes = driver_bytes * spec.memory_bytes // usual_bytes
    remark = (
        f"the driver reports {driver_bytes} bytes for {smallest['name']} instead of the usual {usual_bytes}; "
        f"torch is taken to see {memory_bytes}"
    )
    return spec, memory_bytes, (remark,)


def _labelled(row: Mapping[str, Any], table: GpuTable) -> tuple[GpuSpec, int, tuple[str, ...]]:
    """By Ray's label alone."""
    labels = [key.removeprefix(_ACCELERATOR) for key in row["resources_total"] if key.startswith(_ACCELERATOR)]
    label = labels[0] if labels else (row.get("labels") or {}).get(_LABEL)
    if label is None:
        raise ClusterUnavailable(
            f"node {_name(row)} has GPUs, but neither its agent nor a label tells which; start it with "
            """--resources '{"accelerator_type:H100": 1}'"""
        )
    spec = table.resolve(str(label))
    remark = f"{_name(row)}: no agent saw its GPUs, so {label} is taken at its word"
    return spec, spec.memory_bytes, tuple(text for text in (remark, spec.assumption) if text)
