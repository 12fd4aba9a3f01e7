"""What is known to fail is refused before anything starts, with what is needed and what is there."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.deploy.preflight import check_memory, check_place, resources
from orchestrator.deploy.ray_api import RayNode
from orchestrator.errors import ApplyFailed
from orchestrator.units import GIB
from tests.unit.deploy.test_render import rendered


def node(available_gib: float | None = 8, **resources: float) -> RayNode:
    memory = None if available_gib is None else int(available_gib * GIB)
    return RayNode("n", "10.0.0.1", resources or {"CPU": 2.0}, 16 * GIB, memory)


def llm_config(replicas: int = 1, **engine: Any) -> Any:
    return rendered(replicas=replicas, engine=engine)["args"]["llm_config"]


def test_every_replica_takes_all_its_ranks() -> None:
    assert resources(llm_config(3, tensor_parallel_size=2, pipeline_parallel_size=2)) == {"GPU": 0, "CPU": 12}


def test_a_service_that_just_fits_is_let_through() -> None:
    check_place([node()], llm_config(tensor_parallel_size=2), {"CPU": 2})
    check_memory([node(2 + 1 + 0.5 + 1)], 1 * GIB, llm_config(kv_cache_memory_bytes=GIB))


def test_no_place_says_what_is_needed_and_there() -> None:
    with pytest.raises(ApplyFailed, match=r"needs 4 CPU, and 1\.5 are free \(10\.0\.0\.1: CPU 2.*fewer replicas"):
        check_place([node()], llm_config(2, tensor_parallel_size=2), {"CPU": 1.5})
    with pytest.raises(ApplyFailed, match=r"0 are free \(no live node"):
        check_place([], llm_config(), {})


def test_too_little_memory_says_what_is_needed_and_there() -> None:
    with pytest.raises(ApplyFailed, match=r"needs 7\.0 GiB \(3\.0 GiB weights, 1\.0 GiB KV cache.* has 6\.9 GiB"):
        check_memory([node(3), node(6.9)], 3 * GIB, llm_config(kv_cache_memory_bytes=GIB // 2, tensor_parallel_size=2))


def test_replicas_may_share_a_node_or_spread() -> None:
    need_3_5 = llm_config(2)
    check_memory([node(7)], GIB, need_3_5)
    check_memory([node(3.5), node(3.5)], GIB, need_3_5)
    with pytest.raises(ApplyFailed):
        check_memory([node(6.9)], GIB, need_3_5)


def test_a_node_too_young_to_know_its_memory_refuses_nobody() -> None:
    check_memory([node(1), node(None)], 100 * GIB, llm_config())
