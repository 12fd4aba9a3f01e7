"""A cluster comes from a file or a word; what cannot be used is refused in one line that names the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.cluster.snapshot import HostFacts
from orchestrator.cluster.spec import MAX_FILE_BYTES, load_cluster, parse_gpus
from orchestrator.errors import ConfigError
from orchestrator.units import GIB

FILES = Path(__file__).parent / "files"


def sizes(text: str) -> list[int]:
    return [node.num_gpus for node in parse_gpus(text).nodes]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1xH100", [1]),
        ("16xH100", [8, 8]),
        ("12xH100", [8, 4]),
        ("6+6+4xH100", [6, 6, 4]),
        ("8xH100,4xL40S", [8, 4]),
        (" 2 × H200 ", [2]),
    ],
)
def test_a_word_makes_nodes_of_eight_or_of_the_sizes_it_lists(text: str, expected: list[int]) -> None:
    assert sizes(text) == expected


@pytest.mark.parametrize("text", ["", "H100", "xH100", "16H100", "16x", "-1xH100", "1.5xH100", "0xH100", "6+0xH100"])
def test_a_word_that_is_no_cluster_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="--gpus"):
        parse_gpus(text)


def test_a_word_for_more_gpus_than_anybody_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="the limit is"):
        parse_gpus("999999999xH100")


def test_an_unknown_gpu_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="H1000"):
        parse_gpus("8xH1000")


def test_a_name_that_spans_variants_states_what_it_was_taken_for() -> None:
    (assumption,) = parse_gpus("8xA100").assumptions
    assert "A100" in assumption


def test_the_interconnect_is_the_gpus_own_unless_declared() -> None:
    nvlink, pcie = parse_gpus("2xH100,2xL40S").nodes
    assert (nvlink.interconnect, pcie.interconnect) == ("nvlink", "pcie")


def test_a_plain_file_gives_counts_islands_use_memory_and_domains() -> None:
    big, first, second, shared = load_cluster(FILES / "lab.yaml").nodes
    assert [node.name for node in (big, first, second)] == ["big", "pcie-0", "pcie-1"]
    assert big.gpu_memory_bytes == resolve_gpu("H100").memory_bytes
    assert first.free_islands == ((0, 1), (2, 3))
    assert shared.free_gpus == (2, 3)
    assert shared.gpu_memory_bytes == 44 * GIB
    assert {node.failure_domain for node in (first, second)} == {"rack-2"}


def test_ssh_hosts_of_a_ray_file_get_their_hardware_from_the_provider() -> None:
    cluster = load_cluster(FILES / "ray-ssh.yaml")
    assert [(node.name, node.num_gpus, node.failure_domain) for node in cluster.nodes] == [
        ("10.0.0.1", 8, "rack-1"),
        ("10.0.0.2", 8, "rack-1"),
        ("10.0.0.3", 4, "rack-2"),
    ]


def test_cloud_node_types_count_as_often_as_ray_may_start_them() -> None:
    """A head without GPUs is no node; resources, labels and overrides each name the GPU."""
    cluster = load_cluster(FILES / "ray-cloud.yaml")
    counted = {(node.name.rpartition("-")[0], node.gpu_type) for node in cluster.nodes}
    assert counted == {("by_resource", "H100"), ("by_label", "L40S"), ("by_override", "H200")}
    assert len(cluster.nodes) == 2 + 1 + 6


BAD_FILES = {
    "a wrong key": ("nodes: [{name: a, gpu_typ: H100, num_gpus: 8}]", "nodes.0.gpu_type"),
    "a wrong key at the top": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 8}]\nnode: 1",
        "node: no such key",
    ),
    "a negative size": ("nodes: [{name: a, gpu_type: H100, num_gpus: -8}]", "nodes.0.num_gpus"),
    "a truth value for a number": ("nodes: [{name: a, gpu_type: H100, num_gpus: yes}]", "nodes.0.num_gpus"),
    "zero nodes": ("nodes: []", "nodes:"),
    "an unknown GPU": ("nodes: [{name: a, gpu_type: H9000, num_gpus: 8}]", "H9000"),
    "a negative memory": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 8, gpu_memory: -80GB}]",
        "nodes.0.gpu_memory",
    ),
    "a GPU in use that does not exist": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 8, gpus_in_use: [8]}]",
        "gpus_in_use names GPU 8",
    ),
    "an island that lists a GPU twice": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 2, nvlink_islands: [[0, 0]]}]",
        "names a GPU twice",
    ),
    "islands that leave GPUs out": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 4, nvlink_islands: [[0, 1]]}]",
        "lists 2 GPUs",
    ),
    "two nodes of one name": (
        "nodes: [{name: a, gpu_type: H100, num_gpus: 8}, {name: a, gpu_type: H100, num_gpus: 8}]",
        "two nodes are named 'a'",
    ),
    "neither kind of file": ("cluster: {}", "neither `nodes`"),
    "a list": ("[1, 2]", "mapping"),
    "nothing": ("", "mapping"),
    "no YAML": ("nodes: [", "not YAML"),
    "a pit": ("[" * 50_000, "not YAML"),  # in our words, or in those of a libyaml that counts too
    "a Ray file without hardware": (
        "cluster_name: c\nprovider: {type: local, head_ip: a}",
        "provider.orchestrator.gpu_type",
    ),
    "a Ray file without a head": ("cluster_name: c\nprovider: {type: local}", "provider.head_ip"),
    "a Ray file with a wrong key of ours": (
        "cluster_name: c\nprovider: {type: local, head_ip: a, orchestrator: {gpu: H100}}",
        "provider.orchestrator.gpu: no such key",
    ),
    "an override for a host that is none": (
        "cluster_name: c\nprovider: {type: local, head_ip: a, orchestrator: {nodes: {b: {num_gpus: 1}}}}",
        "provider.orchestrator.nodes.b",
    ),
    "machines without GPUs only": (
        "cluster_name: c\nprovider: {type: aws}\navailable_node_types: {head: {resources: {CPU: 8}}}",
        "no node with GPUs",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line_that_names_the_field(name: str, tmp_path: Path) -> None:
    text, expected = BAD_FILES[name]
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as failure:
        load_cluster(path)
    assert expected in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_folder_a_missing_file_and_a_huge_one_are_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for path, expected in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.yaml", "No such file"),
        (huge, "the limit is"),
    ):
        with pytest.raises(ConfigError, match=expected):
            load_cluster(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_cluster(path)


def test_a_hosts_own_memory_and_disk_may_be_said(tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text("nodes: [{name: a, gpu_type: H100, num_gpus: 8, host_memory: 2TiB, host_disk: 8TB}]")
    assert load_cluster(plain).nodes[0].host == HostFacts(2 * 1024 * GIB, 8 * 10**12)
    ray = tmp_path / "ray.yaml"
    ray.write_text(
        "cluster_name: c\nprovider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2], orchestrator: "
        "{gpu_type: H100, num_gpus: 8, host_disk: 8TB, nodes: {10.0.0.2: {host_memory: 1TiB}}}}"
    )
    assert [node.host for node in load_cluster(ray).nodes] == [
        HostFacts(None, 8 * 10**12), HostFacts(1024 * GIB, 8 * 10**12)
    ]  # fmt: skip
    assert parse_gpus("8xH100").nodes[0].host is None
