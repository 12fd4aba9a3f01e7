"""The shipped file for Kimi K2 on two hosts, up and down by `ray` alone: the tests are a cluster's life in order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from scripts.cluster_configs import FOLDER
from tests.cluster.hosts import leftover_devices, leftover_processes, running_hosts
from tests.cluster.laptop import Laptop
from tests.cluster.ray_cluster import RayCluster, listening
from tests.cluster.variant import SHIPPED, bring_stand_in, cluster_file

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(420)]

GPUS_PER_HOST = 8
RAY = r"raylet|gcs_server|[r]ay::|site-packages/ray/"
RAYLET = r"raylet/raylet "
# A worker joins after the head has looked for it (every 5 s), reached it over SSH and run the file's commands there,
# which takes 20 s on an idle machine, and one failed start more on a busy one.
JOIN_S = 180
# The file asks for 3 health checks that go unanswered for 2 s, 1 s apart; a second more for a busy head.
GONE_S = 10
# What `ray status` prints is written every 5 s.
REPORT_S = 30
# After so long the autoscaler takes care of a worker that is gone. (It goes on counting the worker's GPUs.)
HEARTBEAT_S = 30
# A raylet looks for its head for 60 s, then ends itself and what it has started.
ORPHAN_S = 90


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    laptop = Laptop(folder / "laptop")
    with running_hosts(folder, 2, laptop.public_key) as hosts:
        bring_stand_in(hosts)
        file = folder / "laptop/kimi.yaml"
        head, worker = hosts
        file.write_text(cluster_file((head.address, worker.address), laptop.key, GPUS_PER_HOST))
        cluster = RayCluster(laptop, hosts, file)
        cluster.say("two hosts are on")
        yield cluster
    assert not leftover_devices()
    assert not leftover_processes()


def ray_processes(cluster: RayCluster) -> list[int]:
    return [pid for host in cluster.hosts for pid in host.pids(RAY)]


def whole(cluster: RayCluster) -> bool:
    return cluster.gpus() == 2 * GPUS_PER_HOST


def test_the_file_is_the_shipped_one_but_for_the_rehearsal(cluster: RayCluster) -> None:
    """What differs from cluster-configs/kimi-16xh100.yaml: addresses, the SSH key, and what stands for GPUs."""
    shipped = yaml.safe_load((FOLDER / f"{SHIPPED}.yaml").read_text())
    variant = yaml.safe_load(cluster.file.read_text())
    assert {key for key in shipped if shipped[key] != variant[key]} == {
        "provider", "auth", "file_mounts", "setup_commands", "head_start_ray_commands", "worker_start_ray_commands"
    }  # fmt: skip
    assert {key for key in shipped["provider"] if shipped["provider"][key] != variant["provider"][key]} == {
        "head_ip", "worker_ips"
    }  # fmt: skip
    assert set(variant["file_mounts"]) - set(shipped["file_mounts"]) == {"~/moe-orchestrator/scripts"}
    assert "--num-cpus=4 --num-gpus=2 " in cluster_file(("10.0.0.1", "10.0.0.2"), cluster.laptop.key, 2)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        rehearsed = variant[key][-1]
        for words in (
            ' --num-cpus=16 --num-gpus=8 --resources=\'{"accelerator_type:H100": 1}\'', ",orchestrator/emulated=true"
        ):  # fmt: skip
            assert rehearsed.count(words) == 1
            rehearsed = rehearsed.replace(words, "")
        assert rehearsed.replace("268435456", "8589934592") == shipped[key][-1]


def test_without_a_token_nothing_starts(cluster: RayCluster) -> None:
    done = cluster.ray("up", "-y")
    assert done.returncode != 0
    assert "No such file or directory" in done.stdout
    assert ".ray/auth_token" in done.stdout
    assert ray_processes(cluster) == []


def test_one_plain_ray_up_brings_both_hosts(cluster: RayCluster) -> None:
    cluster.laptop.make_token()
    cluster.up()
    cluster.wait("both hosts are in the cluster", lambda: whole(cluster), JOIN_S)
    cluster.wait("`ray status` shows all GPUs", lambda: f"/{2 * GPUS_PER_HOST}.0 GPU" in cluster.status(), REPORT_S)
    for host in cluster.hosts:
        node = cluster.nodes()[host.address]
        assert node["labels"]["orchestrator/host"] == host.address
        assert node["labels"]["orchestrator/emulated"] == "true"
        assert node["resources_total"]["accelerator_type:H100"] == 1
        assert node["resources_total"]["GPU"] == GPUS_PER_HOST


def test_workers_inherit_the_address_and_the_interface_of_their_host(cluster: RayCluster) -> None:
    for host in cluster.hosts:
        environment = cluster.environment(host)
        assert environment["VLLM_HOST_IP"] == host.address
        assert environment["NCCL_SOCKET_IFNAME"] == environment["GLOO_SOCKET_IFNAME"] == "eth0"
        assert environment["RAY_AUTH_MODE"] == "token"


def test_nothing_was_installed_again(cluster: RayCluster) -> None:
    """The hosts' environment was right, and the commands of the file saw that."""
    for host in cluster.hosts:
        venv = host.home / "moe-orchestrator/.venv"
        assert (venv / "bin").is_symlink()
        assert host.output("python -c 'import orchestrator; print(orchestrator.__path__[0])'").startswith(
            "/srv/ubuntu/"
        )


def test_the_dashboard_listens_on_loopback_and_wants_the_token(cluster: RayCluster) -> None:
    assert listening(cluster.head, 8265) == {"127.0.0.1"}
    assert cluster.ask("/api/v0/nodes")[0] == 401
    assert cluster.ask("/api/v0/nodes", "x" * len(cluster.laptop.token))[0] in (401, 403)
    assert cluster.ask("/api/v0/nodes", cluster.laptop.token)[0] == 200
    stranger = cluster.head.run("RAY_AUTH_MODE=disabled ray status")
    assert stranger.returncode != 0
    assert "GPU" not in stranger.stdout


def test_a_host_that_loses_power_is_missed_and_comes_back_by_itself(cluster: RayCluster) -> None:
    """Nobody has to run anything: the head waits for the host's SSH, then starts Ray there again."""
    worker = cluster.hosts[1]
    worker.kill()
    cluster.wait("the dead host is gone", lambda: worker.address not in cluster.nodes(), GONE_S)
    waiting = f"{worker.address}: local.cluster.node, waiting-for-ssh"
    cluster.wait("`ray status` waits for it", lambda: waiting in cluster.status(), HEARTBEAT_S + REPORT_S)
    worker.start()
    cluster.wait("the host is back", lambda: whole(cluster), JOIN_S)
    assert cluster.nodes()[worker.address]["labels"]["orchestrator/host"] == worker.address


@pytest.mark.full
def test_a_second_ray_up_ends_with_the_same_cluster(cluster: RayCluster) -> None:
    """It restarts Ray on the hosts, as Ray says before it asks; what it must not do is lose one."""
    if not ray_processes(cluster):  # where this test runs alone, nothing is up yet
        cluster.laptop.make_token()
        cluster.up()
        cluster.wait("both hosts are in the cluster", lambda: whole(cluster), JOIN_S)
    session = cluster.session()
    cluster.up()
    assert cluster.session() != session
    cluster.wait("both hosts are in the cluster again", lambda: whole(cluster), JOIN_S)
    assert set(cluster.nodes()) == {host.address for host in cluster.hosts}


def test_ray_up_without_restart_leaves_ray_alone(cluster: RayCluster) -> None:
    session, nodes = cluster.session(), {node["node_id"] for node in cluster.nodes().values()}
    done = cluster.ray("up", "-y", "--no-restart")
    assert done.returncode == 0, done.stdout[-5000:]
    assert cluster.session() == session
    assert {node["node_id"] for node in cluster.nodes().values()} == nodes


def test_ray_down_ends_ray_on_the_head_and_then_on_the_other_host(cluster: RayCluster) -> None:
    """`ray down` stops Ray on the head only. A raylet without a head ends itself; its agents want a `ray stop`."""
    head, worker = cluster.hosts
    assert worker.pids(RAYLET)
    cluster.down()
    assert head.pids(RAY) == []
    cluster.wait("the other host's raylet has ended itself", lambda: not worker.pids(RAYLET), ORPHAN_S)
    worker.output("ray stop")
    cluster.wait("no Ray process is left", lambda: not ray_processes(cluster), 10)
