"""`pull --nodes`: every node of a real Ray fetches into its own cache, once; no secret passes through Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from orchestrator.weights.manifest import complete
from tests.serve.fake_hub import Hub, Repository, fake_hub
from tests.serve.test_pull import COMMIT, LARGE, SMALL, Machine, files
from tests.serve.two_nodes import ADDRESSES, two_nodes

# The first test waits for both nodes of a Ray.
pytestmark = [pytest.mark.serve, pytest.mark.timeout(300)]
TOKEN = "hf_the_nodes_own"


@dataclass
class Rig:
    """The operator's machine, the hub, and where each node keeps its models."""

    operator: Machine
    hub: Hub
    url: str
    caches: tuple[Path, Path]

    def snapshot(self, node: int, hf_id: str = "org/model") -> Path:
        return self.caches[node] / "hub" / f"models--{hf_id.replace('/', '--')}" / "snapshots" / COMMIT

    def job_texts(self) -> str:
        """Everything that Ray tells of jobs and prints of them."""
        headers = {"Authorization": f"Bearer {'0' * 64}"}
        jobs = httpx.get(f"{self.url}/api/jobs/", headers=headers, trust_env=False).json()
        logs = [
            httpx.get(f"{self.url}/api/jobs/{job['submission_id']}/logs", headers=headers, trust_env=False).text
            for job in jobs
            if job["submission_id"]
        ]
        return json.dumps(jobs) + "".join(logs)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("n")
    caches = (home / "cache-0", home / "cache-1")
    token_file = home / "hf-token"
    token_file.write_text(TOKEN)
    gated = Repository(COMMIT, files(), gated=True)
    repositories = {"org/model": Repository(COMMIT, files()), "org/gated": gated}
    repositories["org/shared"] = Repository(COMMIT, files(), slow_s=0.002)
    with fake_hub(repositories) as hub:
        shared = {"HF_ENDPOINT": hub.url, "HF_TOKEN_PATH": str(token_file)}
        environments = ({**shared, "HF_HOME": str(caches[0])}, {**shared, "HF_HOME": str(caches[1])})
        with two_nodes(home, environments) as url:
            operator = Machine(home / "operator", "http://127.0.0.1:9")
            operator.home.mkdir()
            operator.env |= {"RAY_AUTH_TOKEN_PATH": str(home / "ray-token"), "RAY_DASHBOARD_URL": url}
            yield Rig(operator, hub, url, caches)


def test_every_node_fetches_into_its_own_cache_and_not_a_second_time(rig: Rig) -> None:
    code, out, err = rig.operator.run("org/model", "--nodes", "--json")
    assert code == 0, err
    rows = json.loads(out)
    assert sorted((row["node"], row["state"], row["revision"]) for row in rows) == [
        (address, "fetched", COMMIT) for address in ADDRESSES
    ]
    assert all(complete(rig.snapshot(node)) for node in (0, 1))
    assert rig.hub.sent()[LARGE] == 2 * len(files()[LARGE])
    code, out, _ = rig.operator.run("org/model", "--nodes", "--revision", COMMIT)
    assert (code, out.count("already there")) == (0, 2)
    assert rig.hub.asked == []


def test_one_damaged_node_is_named_and_mended_alone(rig: Rig) -> None:
    rig.operator.run("org/model", "--nodes")
    rig.hub.asked.clear()
    (rig.snapshot(1) / SMALL).resolve().write_bytes(b"short")
    code, out, err = rig.operator.run("org/model", "--nodes", "--check-only")
    assert code == 1
    assert f"{ADDRESSES[0]}: checked" in out
    assert f"1 of 2 nodes failed; {ADDRESSES[1]}: " in err
    assert f"{SMALL} has 5 bytes" in err
    code, out, _ = rig.operator.run("org/model", "--nodes")
    assert code == 0
    assert f"{ADDRESSES[0]}: already there" in out
    assert f"{ADDRESSES[1]}: fetched" in out
    assert rig.hub.sent() == {SMALL: len(files()[SMALL])}


def test_nodes_that_share_a_disk_fetch_once(rig: Rig) -> None:
    """The same folder under both caches, as a network disk would have it: the second node waits and finds it whole."""
    shared = rig.snapshot(0, "org/shared").parents[1]
    shared.mkdir(parents=True)
    rig.snapshot(1, "org/shared").parents[2].mkdir(parents=True, exist_ok=True)
    rig.snapshot(1, "org/shared").parents[1].symlink_to(shared)
    rig.hub.asked.clear()
    code, out, err = rig.operator.run("org/shared", "--nodes", "--json")
    assert code == 0, err
    assert sorted(row["state"] for row in json.loads(out)) == ["already there", "fetched"]
    assert rig.hub.sent()[LARGE] == len(files()[LARGE])


def test_nodes_use_their_own_token_and_the_operators_never_reaches_ray(rig: Rig) -> None:
    code, _, err = rig.operator.run("org/gated", "--nodes", HF_TOKEN="hf_the_operators")
    assert code == 0, err
    told = rig.job_texts()
    assert "org/gated" in told
    assert TOKEN not in told
    assert "hf_the_operators" not in told


def test_what_every_node_is_refused_is_one_line(rig: Rig) -> None:
    line = rig.operator.refused("org/absent", "--nodes")
    assert "org/absent is not on the Hugging Face hub" in line
