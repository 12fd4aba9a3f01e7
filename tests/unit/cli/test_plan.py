"""`plan` and `plan-diff` on the command line: tables, documents, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import yaml

from orchestrator.deploy.ray_api import RayApi
from orchestrator.plan import Plan, verify
from tests.unit.cli.runner import Runner

LAB = Path(__file__).parent.parent / "cluster" / "files" / "lab.yaml"
RAY = Path(__file__).parent.parent / "cluster" / "files" / "ray-ssh.yaml"


def test_a_plan_is_shown_with_a_memory_bar_for_every_rank(run: Runner) -> None:
    code, out, _ = run("plan", "kimi-k2", "--gpus", "16xH100")
    assert code == 0
    assert "TP 8 × PP 2" in out
    assert sum("node-" in line and "█" in line and "░" in line for line in out.splitlines()) == 16
    assert "smoke test" in out
    assert "rejected" in out
    assert "H100 is taken as the SXM 80 GB card" in out


def test_json_is_the_document_and_nothing_else(run: Runner) -> None:
    code, out, _ = run("plan", "kimi-k2", "--gpus", "16xH100", "--json")
    plan = Plan.from_json(out)
    verify(plan)
    assert (code, plan.parallelism.tensor, plan.parallelism.pipeline) == (0, 8, 2)


def test_yaml_is_the_same_document(run: Runner) -> None:
    _, as_json, _ = run("plan", "mixtral-8x7b", "--gpus", "2xH100", "--json")
    _, as_yaml, _ = run("plan", "mixtral-8x7b", "--gpus", "2xH100", "--yaml")
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


def test_cluster_files_are_planned_for(run: Runner) -> None:
    for path in (LAB, RAY):
        code, out, _ = run("plan", "mixtral-8x7b", "--cluster", path, "--json")
        assert code == 0
        verify(Plan.from_json(out))


def test_engine_arguments_are_fixed_by_vllms_names(run: Runner) -> None:
    _, out, _ = run(
        "plan", "mixtral-8x7b", "--gpus", "8xH100", "--tensor-parallel-size", "4",
        "--pipeline-parallel-size=1", "--enable-expert-parallel", "--gpu-memory-utilization", "0.85",
        "--max-model-len", "16k", "--max-num-seqs", "64", "--kv-cache-dtype", "fp8", "--json",
    )  # fmt: skip
    plan = Plan.from_json(out)
    assert plan.parallelism.label() == "TP 4 + EP"
    expected = {
        "tensor_parallel_size": 4, "enable_expert_parallel": True, "gpu_memory_utilization": 0.85,
        "max_model_len": 16_000, "max_num_seqs": 64, "kv_cache_dtype": "fp8",
    }  # fmt: skip
    assert expected.items() <= plan.engine.args.items()
    assert plan.sources["engine.max_model_len"] == "user"


def test_arguments_may_stand_before_the_model(run: Runner) -> None:
    code, out, _ = run("plan", "--gpus", "8xH100", "-tp", "4", "mixtral-8x7b", "--json")
    assert code == 0
    assert Plan.from_json(out).parallelism.tensor == 4


def test_explain_says_why(run: Runner) -> None:
    _, out, _ = run("plan", "kimi-k2", "--gpus", "16xH100", "--explain")
    assert "fewest pipeline stages" in out
    assert "not an estimate of speed" in out


def test_all_shows_every_refusal(run: Runner) -> None:
    _, short, _ = run("plan", "kimi-k2", "--gpus", "16xH100")
    _, long, _ = run("plan", "kimi-k2", "--gpus", "16xH100", "--all")
    assert "--all shows them" in short
    assert "heads_not_divisible" in long
    assert "--all shows them" not in long


def test_the_rule_of_thumb_stands_beside_the_exact_figure(run: Runner) -> None:
    _, out, _ = run("plan", "kimi-k2", "--gpus", "8xH200", "--max-model-len", "8192", "--rule-of-thumb")
    assert "does not fit the nominal 1,128 GB" in out
    assert "the exact figure fits" in out


def test_the_rule_of_thumb_is_shown_for_what_does_not_fit_too(run: Runner) -> None:
    code, out, err = run("plan", "kimi-k2", "--gpus", "8xH100", "--rule-of-thumb")
    assert code == 1
    assert "the exact figure agrees: it does not fit" in out
    assert "GiB short" in err


def test_what_if_lists_gpus_that_would_do(run: Runner) -> None:
    code, out, _ = run("plan", "deepseek-v3.2", "--what-if")
    assert code == 0
    assert any("H200" in line and "8: TP 8 + EP" in line for line in out.splitlines())
    assert any("A100-80G" in line and "no number" in line for line in out.splitlines())


def test_a_whole_command_is_answered(run: Runner) -> None:
    command = "vllm serve moonshotai/Kimi-K2-Instruct -tp 8 -pp 2 --max-model-len 32768"
    code, out, _ = run("plan", "--from-command", command, "--gpus", "16xH100")
    assert code == 0
    assert "KV tokens" in out
    code, _, err = run("plan", "--from-command", command, "--gpus", "8xH100")
    assert code == 1
    assert "needs 16 GPUs, and 8" in err


def test_two_plans_are_compared(run: Runner, tmp_path: Path) -> None:
    for name, length in (("a", "8192"), ("b", "16384")):
        _, out, _ = run("plan", "mixtral-8x7b", "--gpus", "2xH100", "--max-model-len", length, "--json")
        (tmp_path / name).write_text(out)
    code, out, _ = run("plan-diff", tmp_path / "a", tmp_path / "b")
    assert code == 0
    assert "engine.args.max_model_len" in out
    _, out, _ = run("plan-diff", tmp_path / "a", tmp_path / "b", "--json")
    assert {"path": "kv_cache.max_model_len", "before": 8192, "after": 16384} in json.loads(out)
    _, out, _ = run("plan-diff", tmp_path / "a", tmp_path / "a")
    assert out == "the plans are equal\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["kimi-k3", "--gpus", "16xH100"], "kimi-k3"),
        (["kimi-k2"], "name a cluster"),
        (["--gpus", "16xH100"], "name a model"),
        (["kimi-k2", "--gpus", "16xH900"], "H900"),
        (["kimi-k2", "--gpus", "-16xH100"], "--gpus"),
        (["kimi-k2", "--gpus", "16xH100", "--cluster", str(LAB)], "--cluster and --gpus"),
        (["kimi-k2", "--cluster", "none.yaml"], "none.yaml"),
        (["kimi-k2", "--gpus", "16xH100", "--objective", "speed"], "--objective is 'speed'"),
        (["kimi-k2", "--gpus", "16xH100", "--gpu-type", "L40S"], "L40S"),
        (["kimi-k2", "--gpus", "16xH100", "--tensor-paralel-size", "8"], "--tensor-paralel-size"),
        (["kimi-k2", "--gpus", "16xH100", "--tensor-parallel-size", "0"], "--tensor-parallel-size"),
        (["kimi-k2", "--gpus", "16xH100", "--gpu-memory-utilization", "95"], "--gpu-memory-utilization"),
        (["kimi-k2", "--gpus", "16xH100", "--kv-cache-dtype", "fp7"], "--kv-cache-dtype: 'fp7'"),
        (["kimi-k2", "--gpus", "16xH100", "--max-model-len", "999999999"], "999,999,999"),
        (["kimi-k2", "--from-command", "vllm serve m", "--gpus", "1xH100"], "either a model or"),
        (["--from-command", "rm -rf /", "--gpus", "1xH100"], "vllm serve MODEL"),
        (["--from-command", "vllm serve m --config x.yaml", "--gpus", "1xH100"], "--config names a file"),
        (["--from-command", "vllm serve m --max-model-length 5", "--gpus", "1xH100"], "did you mean --max-model-len"),
        (["kimi-k2", "--gpus", "0xH100"], "0xH100"),
        (["kimi-k2", "--gpus", "16xH100", "--engine-version", "newest"], "'newest' is no version"),
        (["kimi-k2", "--gpus", "16xH100", "--json", "--yaml"], "either --json or --yaml"),
        (["kimi-k2", "--gpus", "16xH100", "--speculative-config", "[]"], "speculative_config is []"),
        (["kimi-k2", "--gpus", "16xH100", "--max-num-seqs", "-1"], "--max-num-seqs: '-1'"),
        (["kimi-k2", "--gpus", "16xH100", "--block-size", "17"], "block_size is 17"),
        (["/dev/null", "--gpus", "16xH100"], "/dev/null is neither a folder nor a file"),
    ],
)
def test_bad_input_is_one_line_that_names_the_field_and_exit_code_one(
    words: list[str], expected: str, run: Runner
) -> None:
    code, out, err = run("plan", *words)
    assert code == 1
    assert out == ""
    assert expected in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


BAD_CONFIGS = {
    "a field is missing": ('{"architectures": ["MixtralForCausalLM"]}', "is missing"),
    "a string where a number belongs": (None, "num_hidden_layers"),
    "no JSON": ("{", "config.json"),
    "a list": ("[]", "config.json"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_a_bad_model_config_is_refused_by_field(name: str, run: Runner, tmp_path: Path) -> None:
    text, expected = BAD_CONFIGS[name]
    if text is None:
        text = json.dumps(
            {
                "architectures": ["MixtralForCausalLM"], "hidden_size": 512, "vocab_size": 1000,
                "num_hidden_layers": "many", "num_attention_heads": 8, "num_key_value_heads": 8,
                "intermediate_size": 1024, "num_local_experts": 4, "num_experts_per_tok": 2,
                "torch_dtype": "bfloat16", "max_position_embeddings": 4096,
            }
        )  # fmt: skip
    (tmp_path / "config.json").write_text(text)
    code, _, err = run("plan", tmp_path, "--gpus", "1xH100")
    assert code == 1
    assert expected in err
    assert err.count("\n") == 1


def test_a_huge_file_and_a_folder_without_a_config_are_refused(run: Runner, tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(300 * 1024 * 1024)
    for path in (tmp_path, tmp_path.parent):
        code, _, err = run("plan", path, "--gpus", "1xH100")
        assert code == 1
        assert err.count("\n") == 1


def test_a_plan_that_is_none_is_refused_by_diff(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("{}")
    code, _, err = run("plan-diff", tmp_path / "a", tmp_path / "a")
    assert code == 1
    assert "model: field required" in err


def test_a_running_ray_cluster_can_be_planned_for(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the dashboard's REST API, here answered by a fake."""
    states = [
        {
            "node_id": "a", "node_ip": "10.0.0.1", "state": "ALIVE", "labels": {},
            "resources_total": {"GPU": 2.0, "accelerator_type:H100": 1.0},
        }
    ]  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/nodes":
            return httpx.Response(200, json={"data": {"summary": []}})
        return httpx.Response(200, json={"data": {"result": {"result": states}}})

    class Found:
        dashboard_url = "http://ray"

        def api(self) -> RayApi:
            return RayApi(self.dashboard_url, None, httpx.MockTransport(answer))

    monkeypatch.setattr("orchestrator.deploy.cluster.find_cluster", lambda _address: Found())
    code, out, _ = run("plan", "mixtral-8x7b", "--live", "--json")
    plan = Plan.from_json(out)
    assert code == 0
    assert {rank.node for rank in plan.ranks} == {"10.0.0.1"}
    assert plan.sources["cluster"] == "live Ray cluster"


def test_no_running_cluster_is_said_with_the_way_out(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.deploy.cluster.find_cluster", lambda _address: None)
    code, _, err = run("plan", "mixtral-8x7b", "--live")
    assert code == 1
    assert "--address" in err


def test_notes_stand_beside_the_plan_and_not_in_it(run: Runner) -> None:
    _, out, _ = run("plan", "mixtral-8x7b", "--gpus", "16xH100", "--kv-cache-dtype", "fp8")
    assert "prefix caching and an FP8 KV cache go together" in out
    assert "8 GPUs of H100 (nvlink) stay free; --replicas 2 would fit" in out
    _, as_json, _ = run("plan", "mixtral-8x7b", "--gpus", "16xH100", "--kv-cache-dtype", "fp8", "--json")
    assert "stay free" not in as_json


def test_an_old_engine_has_its_own_rules(run: Runner) -> None:
    words = ["plan", "mixtral-8x7b", "--gpus", "2xH100", "--kv-cache-dtype", "fp8", "--engine-version"]
    code, _, err = run(*words, "0.5.4")
    assert code == 1
    assert "prefix caching does not work with an FP8 KV cache before vLLM 0.5.5" in err
    code, _, _ = run(*words, "0.5.5")
    assert code == 0


def test_a_users_rules_apply_beside_the_built_in_ones(run: Runner, tmp_path: Path) -> None:
    rule = {
        "code": "house_rule", "severity": "error", "engine": "vllm", "versions": "*",
        "when": {"gpu_type": {"eq": "H100"}}, "message": "no {gpu_type} in this house", "mend": "use others",
        "source": "the house", "date": "2026-11-24",
    }  # fmt: skip
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"rules": [rule]}))
    code, _, err = run("plan", "mixtral-8x7b", "--gpus", "2xH100", "--rules", path)
    assert code == 1
    assert "no H100 in this house; use others" in err


@pytest.mark.parametrize("option", ["--concurrency", "--use-gpus", "--replicas"])
def test_a_number_below_one_is_refused_by_name(option: str, run: Runner) -> None:
    code, _, err = run("plan", "mixtral-8x7b", "--gpus", "2xH100", option, "-1")
    assert code == 1
    assert f"{option} is -1" in err
