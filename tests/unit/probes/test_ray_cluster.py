"""A live cluster is read by the GPUs' own names and memory, not by Ray's label, which spans variants."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.cluster.snapshot import HostFacts
from orchestrator.errors import ClusterUnavailable, UnknownGpu
from orchestrator.probes.ray_cluster import snapshot_from


def state(number: int, gpus: int = 2, **changes: Any) -> dict[str, Any]:
    row = {
        "node_id": f"id-{number}",
        "node_ip": f"10.0.0.{number}",
        "state": "ALIVE",
        "resources_total": {"CPU": 8.0, "GPU": float(gpus), "accelerator_type:H100": 1.0},
        "labels": {"ray.io/availability-zone": "zone-a"},
    }
    return row | changes


def agent(number: int, *used_mib: int, name: str = "NVIDIA H100 PCIe", total_mib: int = 81_559) -> dict[str, Any]:
    gpus = [
        {"index": index, "name": name, "memoryUsed": used, "memoryTotal": total_mib}
        for index, used in enumerate(used_mib)
    ]
    return {"raylet": {"nodeId": f"id-{number}"}, "gpus": gpus}


def test_the_gpus_own_name_tells_the_variant_that_rays_label_hides() -> None:
    (node,) = snapshot_from("ray", [agent(1, 0, 0)], [state(1)]).nodes
    assert (node.gpu_type, node.interconnect) == ("H100-PCIe", "pcie")
    assert node.gpu_memory_bytes == resolve_gpu("H100-PCIe").memory_bytes
    assert node.failure_domain == "zone-a"


def test_gpus_that_hold_something_are_in_use() -> None:
    (node,) = snapshot_from("ray", [agent(1, 600, 70_000)], [state(1)]).nodes
    assert node.free_gpus == (0,)


def test_another_total_than_the_usual_is_scaled_and_said() -> None:
    """A slice of a GPU: torch sees less of it in the same proportion."""
    cluster = snapshot_from("ray", [agent(1, 0, 0, total_mib=40_000)], [state(1)])
    usual = resolve_gpu("H100-PCIe")
    assert usual.driver_memory_bytes is not None
    expected = 40_000 * 2**20 * usual.memory_bytes // usual.driver_memory_bytes
    assert cluster.nodes[0].gpu_memory_bytes == expected
    assert "instead of the usual" in cluster.assumptions[0]


def test_without_an_agents_word_the_label_has_to_do_and_it_is_said() -> None:
    cluster = snapshot_from("ray", [], [state(1, gpus=8)])
    assert (cluster.nodes[0].gpu_type, cluster.nodes[0].num_gpus) == ("H100", 8)
    assert "taken at its word" in cluster.assumptions[0]


def test_dead_nodes_and_nodes_without_gpus_do_not_count() -> None:
    states = [state(1), state(2, state="DEAD"), state(3, gpus=0)]
    assert [node.name for node in snapshot_from("ray", [agent(1, 0, 0)], states).nodes] == ["10.0.0.1"]


def test_nodes_come_in_one_order_whatever_the_dashboards() -> None:
    states = [state(2), state(1)]
    assert [node.name for node in snapshot_from("ray", [], states).nodes] == ["10.0.0.1", "10.0.0.2"]


def test_a_cluster_without_gpus_is_refused() -> None:
    with pytest.raises(ClusterUnavailable, match="no live node of ray has a GPU"):
        snapshot_from("ray", [], [state(1, gpus=0)])


def test_gpus_that_nothing_names_are_refused_with_the_mend() -> None:
    with pytest.raises(ClusterUnavailable, match="accelerator_type:H100"):
        snapshot_from("ray", [], [state(1, resources_total={"GPU": 2.0}, labels={})])


def test_a_gpu_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(UnknownGpu, match="Weird 9000"):
        snapshot_from("ray", [agent(1, 0, 0, name="Weird 9000")], [state(1)])


def test_free_memory_and_disk_are_read_where_the_agent_tells_them() -> None:
    """As the dashboard gives them: `mem` is total, available, percent, used; a pod's disk is a dummy of one byte."""
    disks = {"/": {"total": 100, "used": 60, "free": 40, "percent": 60.0}, "/ray": {"total": 900, "free": 800}}
    told = agent(1, 0, 0) | {"mem": [64, 48, 25.0, 16], "disk": disks}
    (node,) = snapshot_from("ray", [told], [state(1)]).nodes
    assert node.host == HostFacts(memory_bytes=48, disk_bytes=800, measured=True)
    pod = agent(1, 0, 0) | {"mem": [64, 48, 25.0, 16], "disk": {"/": {"total": 1, "used": 0, "free": 1}}}
    (node,) = snapshot_from("ray", [pod], [state(1)]).nodes
    assert node.host == HostFacts(48, None, measured=True)
    (node,) = snapshot_from("ray", [agent(1, 0, 0)], [state(1)]).nodes
    assert node.host is None
