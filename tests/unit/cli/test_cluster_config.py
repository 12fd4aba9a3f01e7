"""`cluster-config` on the command line: what a provider does not have is refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import catalog
from orchestrator.cluster.spec import load_cluster, parse_gpus
from tests.unit.cli.runner import Runner

CONFIGS = Path(catalog.__file__).parent / "data" / "configs"
KIMI = ("cluster-config", "kimi-k2", "--gpus", "16xH100", "--provider")


@pytest.mark.parametrize(("model", "gpus"), [("mixtral-8x22b", "4+2+2xH100"), ("kimi-k2", "6+6+4xH200")])
def test_uneven_hosts_come_back_as_they_were_named(run: Runner, tmp_path: Path, model: str, gpus: str) -> None:
    """The file gives the snapshot that it was planned for, with the hosts' addresses for names."""
    path = tmp_path / "cluster.yaml"
    addresses = ("10.1.0.1", "10.1.0.2", "10.1.0.3")
    hosts = [word for address in addresses for word in ("--host", address)]
    assert run("cluster-config", model, "--gpus", gpus, "--provider", "local", *hosts, "-o", path)[0] == 0
    planned = parse_gpus(gpus).nodes
    named = tuple(replace(node, name=address) for node, address in zip(planned, addresses, strict=True))
    assert load_cluster(path).nodes == named


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*KIMI, "azure"), "--provider is 'azure'; it must be local, aws, gcp, kuberay"),
        ((*KIMI, "local", "--spot"), "--spot needs a cloud"),
        ((*KIMI, "local", "--host", "10.0.0.1"), "1 hosts are named, but 16xH100 has 2 nodes"),
        ((*KIMI, "local", "--host", "a;b", "--host", "c"), "'a;b' is no address or host name"),
        ((*KIMI, "local", "--host", "a", "--host", "a"), "names the same host twice"),
        ((*KIMI, "aws", "--host", "10.0.0.1"), "aws rents its own"),
        ((*KIMI, "local", "--name", "A B"), "the cluster's name is 'A B'"),
        ((*KIMI, "local", "--image", "a:1"), "--image needs --provider kuberay"),
        ((*KIMI, "kuberay", "--image", "a:1", "--spot"), "--spot is for files of `ray up`"),
        ((*KIMI, "kuberay"), "--image is ''; name one you built from the Dockerfile"),
        ((*KIMI, "kuberay", "--image", "a:1", "--kind", "job"), "--kind is 'job'; it must be cluster or service"),
        ((*KIMI, "kuberay", "--image", "a:1", "--model-claim", "A_B"), "--model-claim 'A_B' is no name"),
        ((*KIMI, "kuberay", "--image", "a:1", "--name", "A B"), "the cluster's name is 'A B'"),
        (
            ("cluster-config", "mixtral-8x22b", "--gpus", "4xH100", "--provider", "aws"),
            "aws has no machine with 4 × H100; with H100 it has p5.4xlarge (1), p5.48xlarge (8)",
        ),
        (
            ("cluster-config", "mixtral-8x22b", "--gpus", "8xL40S", "--provider", "gcp"),
            "the GPUs known there are A100-80G, B200, H100, H200",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(words: tuple[str, ...], message: str, run: Runner) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_manifests_are_written_for_the_image_that_is_named(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "kimi.yaml"
    words = ("--kind", "service", "--image", "registry.example.com/mine:7", "--model-claim", "models")
    assert run(*KIMI, "kuberay", *words, "-o", path)[0] == 0
    text = path.read_text()
    assert text.count("image: registry.example.com/mine:7") == 3
    assert "claimName: models" in text
    assert "--kind service --image registry.example.com/mine:7 --model-claim models" in text.replace("\n# ", " ")


def test_json_gives_every_manifest(run: Runner) -> None:
    _, out, _ = run(*KIMI, "kuberay", "--image", "a:1", "--json")
    assert [document["kind"] for document in json.loads(out)] == ["NetworkPolicy", "RayCluster"]


def test_a_model_that_pods_could_not_fetch_is_no_service(run: Runner, tmp_path: Path) -> None:
    """A folder of this computer can be planned for; a cluster made for it has to be given the model otherwise."""
    config = next(CONFIGS.glob("*8x7B*.json"))
    (tmp_path / "config.json").write_text(config.read_text())
    words = ("cluster-config", tmp_path, "--gpus", "2xH100", "--provider", "kuberay", "--image", "a:1", "--name", "own")
    assert run(*words)[0] == 0
    code, _, err = run(*words, "--kind", "service")
    assert code == 1
    assert "is on this computer, and not in the pods" in err
