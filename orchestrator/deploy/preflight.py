"""What can be known to fail before anything starts: a rank without a place, weights without memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.deploy.ray_api import RayNode
from orchestrator.errors import ApplyFailed
from orchestrator.memory.host import ENGINE_BASE_BYTES, ENGINE_RANK_BYTES
from orchestrator.units import format_bytes


def resources(llm_config: Mapping[str, Any]) -> dict[str, float]:
    """The logical resources that all replicas of a service take together."""
    bundles = llm_config["placement_group_config"]["bundles"]
    return {
        resource: _replicas(llm_config) * sum(bundle.get(resource, 0) for bundle in bundles)
        for resource in ("GPU", "CPU")
    }


def _replicas(llm_config: Mapping[str, Any]) -> int:
    return int(llm_config["deployment_config"]["num_replicas"])


def check_place(nodes: Sequence[RayNode], llm_config: Mapping[str, Any], free: Mapping[str, float]) -> None:
    """Refuse a service whose ranks find no place in the cluster.

    `free` holds the cluster's logical resources that nobody uses. Raises `ApplyFailed` with what is needed and there.
    """
    for resource, needed in resources(llm_config).items():
        if needed > free.get(resource, 0):
            there = "; ".join(node.describe() for node in nodes) or "no live node"
            raise ApplyFailed(
                f"no place for it: needs {needed:g} {resource}, and {free.get(resource, 0):g} are free ({there}); "
                "delete another model, ask for fewer replicas or ranks, or add a node"
            )


def check_memory(nodes: Sequence[RayNode], weights_bytes: int, llm_config: Mapping[str, Any]) -> None:
    """Refuse a CPU service that no node's memory can hold; raises `ApplyFailed` with what is needed and there."""
    engine = llm_config["engine_kwargs"]
    ranks = len(llm_config["placement_group_config"]["bundles"])
    cache_bytes = int(engine.get("kv_cache_memory_bytes") or 0) * ranks
    needed = weights_bytes + cache_bytes + ENGINE_BASE_BYTES + ENGINE_RANK_BYTES * ranks
    free = [node.memory_available_bytes for node in nodes if node.memory_available_bytes is not None]
    if len(free) < len(nodes):
        return  # a node too young to know: the engine itself will tell
    most_free = max(free, default=0)
    if sum(size_bytes // needed for size_bytes in free) < _replicas(llm_config):
        raise ApplyFailed(
            f"too little memory: a replica needs {format_bytes(needed)} ({format_bytes(weights_bytes)} weights, "
            f"{format_bytes(cache_bytes)} KV cache, the rest for the engine itself), and the freest node has "
            f"{format_bytes(most_free)}; free some, or lower --kv-cache-memory-bytes"
        )
