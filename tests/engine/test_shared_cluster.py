"""Models, replicas and uneven nodes: who sits where is planned, and no GPU is held twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.harness import Cli

pytestmark = [pytest.mark.engine, pytest.mark.full, pytest.mark.timeout(1200)]

MODEL = "kimi-k2-mini"


@pytest.fixture
def alone(apart: Cli) -> Iterator[Cli]:
    """A command line with nothing running, before and after: each test has a cluster of its own shape."""
    apart.json("down")
    yield apart
    apart.json("down")


def _seats(cli: Cli, name: str) -> list[tuple[str, int]]:
    """Node and GPU of every rank of a model, as its ranks themselves told."""
    (row,) = [row for row in cli.json("status")["models"] if row["name"] == name]
    assert all(rank["weights_bytes_measured"] for rank in row["ranks"])
    return [(rank["node"], rank["gpu_index"]) for rank in row["ranks"]]


def _ask(cli: Cli, model: str) -> Any:
    return cli.client().completions.create(model=model, prompt="Hello", max_tokens=2, temperature=0)


def test_replicas_and_models_share_a_cluster_and_what_does_not_fit_is_refused_before_it_starts(alone: Cli) -> None:
    emulated = ("--emulate", "--gpus", "2+2xH100", "--tensor-parallel-size", "1")
    assert alone.deploy(MODEL, "--replicas", "2", *emulated)["action"] == "deployed"
    assert alone.deploy("smol-moe", *emulated)["action"] == "deployed"
    seats = [*_seats(alone, MODEL), *_seats(alone, "smol-moe")]
    assert len(seats) == 3
    assert max(Counter(seats).values()) == 1
    for model in (MODEL, "smol-moe"):
        assert _ask(alone, model).usage.completion_tokens == 2
    line = alone.refused(
        "deploy", MODEL, "--name", "third", "--emulate", "--tensor-parallel-size", "2", "--port", str(alone.port)
    )
    assert "no layout of" in line
    assert "1 of H100" in line, "one GPU of four is left"
    assert {row["name"] for row in alone.json("status")["models"]} == {MODEL, "smol-moe"}


def test_of_two_deployments_at_once_each_gets_gpus_of_its_own(alone: Cli) -> None:
    """The first to be put has what it planned; the other plans again."""
    words = ("--emulate", "--gpus", "1+1xH100", "--tensor-parallel-size", "1", "--port", str(alone.port))
    alone.deploy(MODEL, *words[:-2])  # the cluster and the front are there
    alone.json("delete", MODEL)
    both = [alone.start("deploy", model, *words) for model in (MODEL, "smol-moe")]
    for process in both:
        _, said = process.communicate(timeout=500)
        assert process.returncode == 0, said
    assert sorted([*_seats(alone, MODEL), *_seats(alone, "smol-moe")]) == [("node-0", 0), ("node-1", 0)]


def test_on_uneven_nodes_every_tensor_group_that_can_keeps_to_a_node(alone: Cli) -> None:
    """6 + 6 + 4 GPUs, TP 4 × PP 4: left to itself, vLLM hands out ranks in the order of the nodes' ids."""
    degrees = ("--tensor-parallel-size", "4", "--pipeline-parallel-size", "4")
    said = alone.deploy(MODEL, "--emulate", "--gpus", "6+6+4xH100", *degrees)
    assert said["layout"] == "TP 4 × PP 4"
    (row,) = alone.json("status")["models"]
    nodes: dict[int, set[str]] = {}
    for rank in row["ranks"]:
        nodes.setdefault(rank["pipeline_stage"], set()).add(rank["node"])
    assert sorted(len(names) for names in nodes.values()) == [1, 1, 1, 2]
    assert max(Counter(_seats(alone, MODEL)).values()) == 1
    assert _ask(alone, MODEL).usage.completion_tokens == 2
