"""A cluster file says how its head is reached, in Ray's own words."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.remote.cluster_file import ClusterFile, Head, read_cluster_file
from tests.unit.remote.conftest import SHIPPED


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_file_is_read(path: Path) -> None:
    file = read_cluster_file(path)
    assert (file.name, file.ssh_user) == (path.stem, "ubuntu")
    assert (file.address is None) == (file.provider != "local")


def test_hosts_over_ssh_are_named_in_the_file(file: ClusterFile) -> None:
    assert (file.address, file.ssh_private_key) == ("10.0.0.1", "~/.ssh/id_ed25519")


def test_an_address_for_outsiders_is_preferred(tmp_path: Path) -> None:
    """Ray's own rule: `external_head_ip` is for those who are not on the hosts' network."""
    path = tmp_path / "c.yaml"
    path.write_text(
        "cluster_name: c\nprovider: {type: local, head_ip: 10.0.0.1, worker_ips: [], external_head_ip: 192.0.2.7}\n"
        "auth: {ssh_user: me, ssh_proxy_command: 'nc -x proxy:1 %h %p'}\n"
    )
    file = read_cluster_file(path)
    assert (file.address, file.ssh_proxy_command, file.ssh_private_key) == ("192.0.2.7", "nc -x proxy:1 %h %p", None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nodes: [{name: a, gpu_type: H100, num_gpus: 8}]", "no `provider` at its top"),
        ("provider: {type: local}", "cluster_name: field required"),
        ("cluster_name: c\nprovider: {type: local}\nauth: {ssh_user: 7}", "auth.ssh_user"),
        ("cluster_name: c\nprovider: {type: aws}\nauth: {ssh_proxy_use_node_id: true}", "ssh_proxy_use_node_id"),
        ("- a", "is a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_what_is_no_such_file_is_told_with_its_name(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml: ") as error:
        read_cluster_file(path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_two_heads_never_share_a_folder(file: ClusterFile) -> None:
    heads = [Head(file, host, None) for host in ("10.0.0.1", "10.0.0.2")]
    names = {head.folder_name for head in heads}
    assert len(names) == 2
    assert all("/" not in name and name.startswith("kimi-16xh100-") for name in names)
