"""`cluster-config` on the command line: what a provider does not have is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster.spec import load_cluster, parse_gpus
from tests.unit.cli.runner import Runner

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
        ((*KIMI, "azure"), "--provider is 'azure'; it must be local, aws, gcp"),
        ((*KIMI, "local", "--spot"), "--spot needs a cloud"),
        ((*KIMI, "local", "--host", "10.0.0.1"), "1 hosts are named, but 16xH100 has 2 nodes"),
        ((*KIMI, "local", "--host", "a;b", "--host", "c"), "'a;b' is no address or host name"),
        ((*KIMI, "local", "--host", "a", "--host", "a"), "names the same host twice"),
        ((*KIMI, "aws", "--host", "10.0.0.1"), "aws rents its own"),
        ((*KIMI, "local", "--name", "A B"), "the cluster's name is 'A B'"),
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
