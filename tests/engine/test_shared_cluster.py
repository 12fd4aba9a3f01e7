"""Models, replicas and uneven nodes: who sits where is planned, and no GPU is held twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1200)]

MODEL = "kimi-k2-mini"


def _seats(cli: Cli, name: str) -> list[tuple[str, int]]:
    """Node and GPU of every rank of a model, as its ranks themselves told."""
    (row,) = [row for row in cli.json("status")["models"] if row["name"] == name]
    assert all(rank["weights_bytes_measured"] for rank in row["ranks"])
    return [(rank["node"], rank["gpu_index"]) for rank in row["ranks"]]


def _ask(cli: Cli, model: str) -> Any:
    return cli.client().completions.create(model=model, prompt="Hello", max_tokens=2, temperature=0)


def test_replicas_and_models_share_a_cluster_and_what_does_not_fit_is_refused_before_it_starts(apart: Cli) -> None:
    emulated = ("--emulate", "--gpus", "2+2xH100", "--tensor-parallel-size", "1")
    assert apart.deploy(MODEL, "--replicas", "2", *emulated)["action"] == "deployed"
    assert apart.deploy("smol-moe", *emulated)["action"] == "deployed"
    seats = [*_seats(apart, MODEL), *_seats(apart, "smol-moe")]
    assert len(seats) == 3
    assert max(Counter(seats).values()) == 1
    for model in (MODEL, "smol-moe"):
        assert _ask(apart, model).usage.completion_tokens == 2
    line = apart.refused(
        "deploy", MODEL, "--name", "third", "--emulate", "--tensor-parallel-size", "2", "--port", str(apart.port)
    )
    assert "no layout of" in line
    assert "1 of H100" in line, "one GPU of four is left"
    assert {row["name"] for row in apart.json("status")["models"]} == {MODEL, "smol-moe"}
    apart.json("down")


def test_of_two_deployments_at_once_each_gets_gpus_of_its_own(apart: Cli) -> None:
    """The first to be put has what it planned; the other plans again."""
    words = ("--emulate", "--gpus", "1+1xH100", "--tensor-parallel-size", "1", "--port", str(apart.port))
    apart.deploy(MODEL, *words[:-2])  # the cluster and the front are there
    apart.json("delete", MODEL)
    both = [apart.start("deploy", model, *words) for model in (MODEL, "smol-moe")]
    for process in both:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
    assert sorted([*_seats(apart, MODEL), *_seats(apart, "smol-moe")]) == [("node-0", 0), ("node-1", 0)]
    apart.json("down")


def test_on_uneven_nodes_every_tensor_group_that_can_keeps_to_a_node(apart: Cli) -> None:
    """6 + 6 + 4 GPUs, TP 4 × PP 4: left to itself, vLLM hands out ranks in the order of the nodes' ids."""
    degrees = ("--tensor-parallel-size", "4", "--pipeline-parallel-size", "4")
    said = apart.deploy(MODEL, "--emulate", "--gpus", "6+6+4xH100", *degrees)
    assert said["layout"] == "TP 4 × PP 4"
    (row,) = apart.json("status")["models"]
    nodes: dict[int, set[str]] = {}
    for rank in row["ranks"]:
        nodes.setdefault(rank["pipeline_stage"], set()).add(rank["node"])
    assert sorted(len(names) for names in nodes.values()) == [1, 1, 1, 2]
    assert max(Counter(_seats(apart, MODEL)).values()) == 1
    assert _ask(apart, MODEL).usage.completion_tokens == 2
