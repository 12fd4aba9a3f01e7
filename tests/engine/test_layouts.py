"""One model in many layouts, on emulated GPUs: Ray's own executor and placement groups, and always the same tokens."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from tests.engine.harness import ANSWER_TOKENS, QUESTIONS, Cli

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MODEL = "kimi-k2-mini"
# Two nodes of four: a tensor group of up to four keeps to a node, two stages take one each.
GPUS = "4+4xH100"
EXPERTS = 32
full = pytest.mark.full


def layout(tensor: int, pipeline: int, expert: bool, *marks: pytest.MarkDecorator) -> Any:
    name = f"TP {tensor} × PP {pipeline}{' + EP' if expert else ''}"
    return pytest.param(tensor, pipeline, expert, id=name, marks=marks)


@pytest.fixture(scope="module")
def expected(apart: Cli, tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    """The token ids of transformers in float32."""
    folder = Path(apart.json("build", MODEL)["folder"])
    return _transformers_tokens(_known_to_transformers(folder, tmp_path_factory.mktemp("deepseek")))


def _deploy(cli: Cli, tensor: int, pipeline: int, expert: bool) -> Any:
    return cli.deploy(
        MODEL, "--emulate", "--gpus", GPUS, "--dtype", "float32",
        "--tensor-parallel-size", str(tensor), "--pipeline-parallel-size", str(pipeline),
        "--enable-expert-parallel" if expert else "--no-enable-expert-parallel",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tensor", "pipeline", "expert"),
    [
        layout(1, 1, False, full),
        layout(2, 1, False, full),
        layout(1, 2, False, full),
        layout(2, 2, False),
        layout(4, 2, False, full),
        layout(2, 1, True),
        layout(2, 2, True, full),
        layout(4, 2, True, full),
    ],
)
def test_greedy_tokens_in_float32_are_those_of_transformers(
    apart: Cli, expected: list[list[int]], tensor: int, pipeline: int, expert: bool
) -> None:
    """Also held: ranks on the nodes that were planned (or `deploy` fails), experts apart under EP, planned bytes."""
    said = _deploy(apart, tensor, pipeline, expert)
    assert said["action"] in ("deployed", "updated")
    assert said["rank_warnings"] == []
    assert _tokens(apart) == expected
    (row,) = apart.json("status")["models"]
    assert row["rehearsal"]
    ranks = row["ranks"]
    assert [(rank["pipeline_stage"], rank["tensor_rank"]) for rank in ranks] == [
        (stage, member) for stage in range(pipeline) for member in range(tensor)
    ]
    for _, group in groupby(ranks, key=lambda rank: rank["pipeline_stage"]):
        members = list(group)
        assert len({rank["node"] for rank in members}) == 1
        held = [expert for rank in members for expert in rank["experts"] or ()]
        assert sorted(held) == (list(range(EXPERTS)) if expert else [])
    assert all(rank["weights_bytes_measured"] == rank["weights_bytes_planned"] for rank in ranks)


def test_a_live_plan_sees_the_cluster_and_leaves_the_gpus_that_are_held(apart: Cli) -> None:
    """Nodes, kinds and names from the running Ray; what a deployment holds, from its own plan."""
    (row,) = apart.json("status")["models"]
    held = {(rank["node"], rank["gpu_index"]) for rank in row["ranks"]}
    plan = apart.json("plan", "mixtral-8x7b", "--live", "--tensor-parallel-size", "2")
    assert [(node["name"], node["gpu_type"], node["num_gpus"]) for node in plan["cluster"]["nodes"]] == [
        ("node-0", "H100", 4),
        ("node-1", "H100", 4),
    ]
    assert len(held) >= 2
    assert not held & {(rank["node"], rank["gpu_index"]) for rank in plan["ranks"]}
    words = ("deploy", MODEL, "--name", "another", "--emulate", "--tensor-parallel-size", "2", "--dry-run")
    (app,) = apart.json(*words)["applications"]
    assert len(app["args"]["llm_config"]["placement_group_config"]["bundles"]) == 2
    line = apart.refused("plan", "mixtral-8x7b", "--live", "--tensor-parallel-size", "8")
    assert line.startswith("error: no layout of mixtral-8x7b fits 2 nodes, 8 × H100")


def test_ranks_that_run_elsewhere_than_planned_fail_the_deployment(apart: Cli, tmp_path: Path) -> None:
    """The rank is named, and nothing stays deployed. Here the order of bundles is turned round by hand."""
    apart.json("down")
    file = tmp_path / "service.yaml"
    file.write_text(
        "model: kimi-k2-mini\nengine: {tensor_parallel_size: 1, pipeline_parallel_size: 2}\n"
        'env: {VLLM_RAY_BUNDLE_INDICES: "1,0"}\n'
    )
    words = ("-f", str(file), "--emulate", "--gpus", "1+1xH100", "--port", str(apart.port))
    line = apart.refused("deploy", *words)
    assert line.endswith(
        "did not start: the ranks are not where they were planned: rank 0 on node-1, GPU 0: planned on node-0, GPU 0"
    )
    assert apart.json("status")["models"] == []


def _tokens(cli: Cli) -> list[list[int]]:
    """Greedy answers as token ids (`return_token_ids` is vLLM's own extension of the API)."""
    client = cli.client()
    answers = []
    for question in QUESTIONS:
        answer = client.completions.create(
            model=MODEL, prompt=question, max_tokens=ANSWER_TOKENS, temperature=0, extra_body={"return_token_ids": True}
        )
        answers.append(list(answer.choices[0].token_ids))
    return answers


def _known_to_transformers(folder: Path, copy: Path) -> Path:
    """The checkpoint under the name of the model that had the architecture first: transformers has no kimi_k2."""
    for file in folder.iterdir():
        (copy / file.name).symlink_to(file)
    document = {**json.loads((folder / "config.json").read_text()), "model_type": "deepseek_v3"}
    (copy / "config.json").unlink()
    (copy / "config.json").write_text(json.dumps(document))
    return copy


def _transformers_tokens(folder: Path) -> list[list[int]]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = []
    for question in QUESTIONS:
        prompt = tokenizer(question, return_tensors="pt")
        tokens = model.generate(prompt["input_ids"], max_new_tokens=ANSWER_TOKENS, do_sample=False)
        answers.append(tokens[0][prompt["input_ids"].shape[1] :].tolist())
    return answers
