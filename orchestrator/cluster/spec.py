"""From a cluster file, or a shorthand such as `6+6+4xH100`, to a `ClusterSnapshot`.

One translator for each foreign format: a plain list of nodes, Ray's cluster YAML for hosts reached over
SSH (`provider: local`) and Ray's YAML for clouds (`available_node_types`). See docs/cluster-files.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.catalog.gpus import GpuSpec, GpuTable, shipped_gpus
from orchestrator.cluster.documents import (
    Hardware,
    HardwareOverride,
    PlainCluster,
    RayCluster,
    RayNodeType,
    kind_of,
)
from orchestrator.cluster.snapshot import ClusterSnapshot, HostFacts, NodeSnapshot
from orchestrator.errors import ConfigError
from orchestrator.validation import first_problem, read_yaml

MAX_FILE_BYTES = 4 * 1024 * 1024
# What clouds and vendors put in one chassis; `16xH100` means two of them.
GPUS_PER_NODE = 8
MAX_NODES = 100_000
MAX_GPUS = MAX_NODES * GPUS_PER_NODE
_GROUP = re.compile(r"(\d{1,9}(?:\+\d{1,9})*)\s*[x×*]\s*([A-Za-z][\w.-]*)")
_ACCELERATOR = "accelerator_type:"
# A cluster's name, its hosts, and where they were read.
Parts = tuple[str, list[tuple[str, Hardware]], str]


def load_cluster(path: Path, gpus: GpuTable | None = None) -> ClusterSnapshot:
    """Read a cluster file that names GPUs of `gpus`, by default of those that ship here.

    Raises `ConfigError`, naming the file and the field, for anything that cannot be used.
    """
    document = read_yaml(path, MAX_FILE_BYTES, "cluster file", "`nodes` or `provider` at its top")
    if "nodes" not in document and "provider" not in document:
        raise ConfigError(f"{path}: neither `nodes` (a plain cluster file) nor `provider` (a Ray one) at its top")
    try:
        cluster = kind_of(document).model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None
    try:
        parts = _from_ray(cluster) if isinstance(cluster, RayCluster) else _from_plain(cluster)
        return _snapshot(*parts, gpus or shipped_gpus())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_gpus(text: str, gpus: GpuTable | None = None) -> ClusterSnapshot:
    """A cluster in one word: `16xH100` (nodes of eight), `6+6+4xH100` (one node for each number).

    Several kinds are separated by commas: `8xH100,8xA100-80G`. Raises `ConfigError` otherwise.
    """
    hosts: list[tuple[str, Hardware]] = []
    for part in text.split(","):
        match = _GROUP.fullmatch(part.strip())
        if match is None:
            raise ConfigError(f"--gpus {text!r} is not a cluster; write for example 16xH100 or 6+6+4xH100")
        for num_gpus in _node_sizes(match.group(1), text):
            hardware = Hardware(gpu_type=match.group(2), num_gpus=num_gpus)
            hosts.append((f"node-{len(hosts)}", hardware))
    return _snapshot(text, hosts, f"--gpus {text}", gpus or shipped_gpus())


def _node_sizes(counts: str, text: str) -> list[int]:
    sizes = [int(count) for count in counts.split("+")]
    if 0 in sizes:
        raise ConfigError(f"--gpus {text!r} has a node without GPUs; every number must be at least 1")
    if sum(sizes) > MAX_GPUS:
        raise ConfigError(f"--gpus {text!r} has {sum(sizes)} GPUs; the limit is {MAX_GPUS}")
    if len(sizes) > 1:
        return sizes
    full, rest = divmod(sizes[0], GPUS_PER_NODE)
    return [GPUS_PER_NODE] * full + ([rest] if rest else [])


# --- plain files ---------------------------------------------------------------------------------------


def _from_plain(cluster: PlainCluster) -> Parts:
    hosts: list[tuple[str, Hardware]] = []
    for entry in cluster.nodes:
        names = [entry.name] if entry.count == 1 else [f"{entry.name}-{i}" for i in range(entry.count)]
        hosts += [(name, entry) for name in names]
    return cluster.name, hosts, "cluster file"


# --- Ray's files ---------------------------------------------------------------------------------------


def _from_ray(cluster: RayCluster) -> Parts:
    hosts = _ssh_hosts(cluster) if cluster.provider.type == "local" else _cloud_nodes(cluster)
    return cluster.cluster_name, list(hosts), "Ray cluster file"


def _ssh_hosts(cluster: RayCluster) -> Iterator[tuple[str, Hardware]]:
    provider = cluster.provider
    if provider.head_ip is None:
        raise ConfigError("provider.head_ip: missing; a `local` provider names its head and worker_ips")
    addresses = (provider.head_ip, *provider.worker_ips)
    unknown = sorted(set(provider.orchestrator.nodes) - set(addresses))
    if unknown:
        raise ConfigError(f"provider.orchestrator.nodes.{unknown[0]}: is neither head_ip nor among worker_ips")
    for address in addresses:
        override = provider.orchestrator.nodes.get(address, HardwareOverride())
        hardware = _merge(f"provider.orchestrator.nodes.{address}", provider.orchestrator, override)
        if hardware is not None:
            yield address, hardware


def _cloud_nodes(cluster: RayCluster) -> Iterator[tuple[str, Hardware]]:
    """Nodes that Ray may start: a type counts with its `max_workers`, the head's type with one more."""
    for type_name, node_type in cluster.available_node_types.items():
        override = cluster.provider.orchestrator.node_types.get(type_name, HardwareOverride())
        where = f"available_node_types.{type_name}"
        hardware = _merge(where, cluster.provider.orchestrator, _declared(node_type), override)
        if hardware is None:
            continue
        for index in range(_num_nodes(cluster, type_name, node_type)):
            yield f"{type_name}-{index}", hardware


def _num_nodes(cluster: RayCluster, type_name: str, node_type: RayNodeType) -> int:
    if type_name == cluster.head_node_type:
        return 1 + (node_type.max_workers or 0)
    most = cluster.max_workers if cluster.max_workers is not None else MAX_NODES
    if node_type.max_workers is not None:
        return min(node_type.max_workers, most)
    if cluster.max_workers is None:
        raise ConfigError(f"available_node_types.{type_name}.max_workers: missing, as is the cluster's max_workers")
    return most


def _declared(node_type: RayNodeType) -> HardwareOverride:
    """The hardware that Ray's own keys declare: `GPU` and `accelerator_type:` resources, or labels."""
    named = [key.removeprefix(_ACCELERATOR) for key in node_type.resources if key.startswith(_ACCELERATOR)]
    label = node_type.labels.get("ray.io/accelerator-type")
    return HardwareOverride(
        gpu_type=named[0] if named else label,
        # Absent `GPU` means a machine without any: a head that only manages.
        num_gpus=int(node_type.resources.get("GPU", 0)),
    )


def _merge(where: str, *layers: HardwareOverride) -> Hardware | None:
    """Later layers win; None for a machine without GPUs. Raises `ConfigError` for what is still missing."""
    merged: dict[str, Any] = {}
    for layer in layers:
        given = layer.model_dump(exclude_none=True, exclude={"nodes", "node_types"})
        merged.update(given)
    if merged.get("num_gpus") == 0:
        return None
    for field in ("gpu_type", "num_gpus"):
        if field not in merged:
            raise ConfigError(
                f"{where}: no {field}; Ray's schema has no place for it, set provider.orchestrator.{field}"
            )
    try:
        return Hardware.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}.{first_problem(error)}") from None


# --- nodes ---------------------------------------------------------------------------------------------


def _node(name: str, hardware: Hardware, gpu: GpuSpec) -> NodeSnapshot:
    linked = bool(gpu.nvlink_bytes_per_s) or bool(hardware.nvlink_islands)
    return NodeSnapshot(
        name=name,
        gpu_type=gpu.name,
        num_gpus=hardware.num_gpus,
        gpu_memory_bytes=hardware.gpu_memory or gpu.memory_bytes,
        interconnect=hardware.interconnect or ("nvlink" if linked else "pcie"),
        nvlink_islands=hardware.nvlink_islands,
        gpus_in_use=frozenset(hardware.gpus_in_use),
        failure_domain=hardware.failure_domain,
        host=_host(hardware),
    )


def _host(hardware: Hardware) -> HostFacts | None:
    if hardware.host_memory is None and hardware.host_disk is None:
        return None
    return HostFacts(hardware.host_memory, hardware.host_disk)


def _snapshot(name: str, hosts: list[tuple[str, Hardware]], source: str, gpus: GpuTable) -> ClusterSnapshot:
    if not hosts:
        raise ConfigError("the cluster has no node with GPUs")
    twice = next((name for name, times in Counter(name for name, _ in hosts).items() if times > 1), None)
    if twice is not None:
        raise ConfigError(f"two nodes are named {twice!r}; names must differ")
    names = dict.fromkeys(hardware.gpu_type for _, hardware in hosts)
    specs = {name: gpus.resolve(name) for name in names}
    notes = [spec.assumption for spec in specs.values()]
    return ClusterSnapshot(
        name=name,
        nodes=tuple(_node(name, hardware, specs[hardware.gpu_type]) for name, hardware in hosts),
        source=source,
        assumptions=tuple(dict.fromkeys(note for note in notes if note)),
        gpus=gpus,
    )
