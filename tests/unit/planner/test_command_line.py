"""A `vllm serve` command is read as vLLM reads it, and answered as it stands."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.catalog.registry import resolve_model
from orchestrator.cluster.spec import parse_gpus
from orchestrator.errors import ConfigError, NoFeasiblePlan
from orchestrator.plan import Plan
from orchestrator.planner import make_plan
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.command_line import read_arguments, read_command

MIXTRAL = (
    "vllm serve mistralai/Mixtral-8x22B-Instruct-v0.1 --tensor-parallel-size 4 --enable-expert-parallel "
    "--dtype fp8 --max-model-len 16384 --gpu-memory-utilization 0.92 --max-num-seqs 32 --port 8000"
)
DEEPSEEK = (
    "vllm serve deepseek-ai/DeepSeek-V3.2-Speciale --tensor-parallel-size 8 --enable-expert-parallel "
    "--dtype fp8 --max-model-len 32768 --gpu-memory-utilization 0.90 --kv-cache-dtype fp8 --max-num-seqs 16 "
    "--port 8000"
)


def plan_of(command: str, gpus: str) -> Plan:
    read = read_command(command)
    assert read.model is not None
    wishes = Wishes(arguments=read.arguments, whole_command=True, others=read.others, env=read.env)
    return make_plan(build_request(resolve_model(read.model), parse_gpus(gpus), wishes))


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--tensor-parallel-size 8", "tensor_parallel_size", 8),
        ("--tensor_parallel_size=8", "tensor_parallel_size", 8),
        ("-tp 8", "tensor_parallel_size", 8),
        ("--max-model-len 32k", "max_model_len", 32_000),
        ("--max-model-len 32K", "max_model_len", 32_768),
        ("--max-model-len auto", "max_model_len", -1),
        ("--max-model-len -1", "max_model_len", -1),
        ("--max-num-batched-tokens 2.5k", "max_num_batched_tokens", 2_500),
        ("--gpu-memory-utilization 0.9", "gpu_memory_utilization", 0.9),
        ("--enable-expert-parallel", "enable_expert_parallel", True),
        ("--no-enable-prefix-caching", "enable_prefix_caching", False),
        ("--kv-cache-dtype fp8", "kv_cache_dtype", "fp8"),
        ("--eplb-config '{\"num_redundant_experts\": 32}'", "eplb_config", {"num_redundant_experts": 32}),
        ("--eplb-config.num_redundant_experts 32", "eplb_config", {"num_redundant_experts": 32}),
    ],
)
def test_an_argument_is_read_in_every_spelling_of_vllm(words: str, name: str, value: Any) -> None:
    assert read_command(f"vllm serve m {words}").arguments == {name: value}


@pytest.mark.parametrize(
    "command",
    [
        "vllm serve m",
        "vllm serve --model m",
        "/opt/venv/bin/vllm serve m",
        "python3 -m vllm.entrypoints.openai.api_server --model=m",
        "VLLM_USE_DEEP_GEMM=1 vllm \\\n  serve m",
    ],
)
def test_every_way_of_starting_vllm_is_known(command: str) -> None:
    assert read_command(command).model == "m"


def test_the_environment_before_a_command_is_kept() -> None:
    assert read_command("A=1 B='x y' vllm serve m").env == {"A": "1", "B": "x y"}


def test_arguments_that_do_not_bear_on_memory_are_set_aside() -> None:
    read = read_command("vllm serve m --port 8000 --enable-auto-tool-choice --api-key=k --seed 1 -tp 2")
    assert read.others == {"port": "8000", "enable_auto_tool_choice": True, "api_key": "k", "seed": 1}
    assert read.arguments == {"tensor_parallel_size": 2}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tensor-parallel-size", "0"], "tensor-parallel-size: '0'"),
        (["--tensor-parallel-size", "-8"], "tensor-parallel-size: '-8'"),
        (["--tensor-parallel-size"], "needs a value"),
        (["--gpu-memory-utilization", "1.5"], "above 0 and at most 1"),
        (["--gpu-memory-utilization", "nan"], "above 0 and at most 1"),
        (["--max-model-len", "1.5K"], "max-model-len"),
        (["--enable-expert-parallel=yes"], "'yes' is not true or false"),
        (["--eplb-config", "{"], "is not a JSON object"),
        (["a", "b"], "two models"),
        (["--eplb-config", "[]", "--eplb-config.window_size", "1"], "must be a JSON object"),
    ],
)
def test_a_bad_value_is_refused_by_name(words: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_arguments(words)


@pytest.mark.parametrize("command", ["", "vllm", "vllm bench serve", "ls -l", "vllm serve 'm"])
def test_what_is_no_serve_command_is_refused(command: str) -> None:
    with pytest.raises(ConfigError, match="--from-command"):
        read_command(command)


def test_the_mixtral_command_fits_four_a100_once_its_dtype_is_mended() -> None:
    plan = plan_of(MIXTRAL, "4xA100-80G-PCIe")
    assert plan.parallelism.label() == "TP 4 + EP"
    assert plan.engine.args["quantization"] == "fp8"
    assert plan.kv_cache.max_concurrent_sequences == 32
    assert "dtype" not in plan.engine.args
    warning = next(warning for warning in plan.warnings if warning.code == "dtype_fp8")
    assert "quantization=fp8" in warning.message


def test_the_deepseek_command_fits_eight_h200_once_its_dtype_is_mended() -> None:
    """Its checkpoint is stored in FP8, so there is nothing to quantise."""
    plan = plan_of(DEEPSEEK, "8xH200")
    assert plan.parallelism.label() == "TP 8 + EP"
    assert "quantization" not in plan.engine.args
    assert plan.kv_cache.max_concurrent_sequences == 16
    assert plan.kv_cache.capacity_tokens > 16 * 32_768


def test_a_command_is_not_improved_but_answered() -> None:
    """One GPU by default, vLLM's own utilisation, and the model's own length."""
    plan = plan_of("vllm serve mistralai/Mixtral-8x7B-Instruct-v0.1 --quantization fp8", "8xH100")
    assert plan.parallelism.label() == "TP 1"
    assert plan.engine.args["gpu_memory_utilization"] == 0.92
    assert plan.engine.args["max_model_len"] == 32_768
    assert "no_max_model_len" in {warning.code for warning in plan.warnings}


def test_an_automatic_length_is_the_longest_that_fits() -> None:
    command = "vllm serve moonshotai/Kimi-K2-Instruct -tp 8 --max-model-len "
    length = plan_of(f"{command} auto", "8xH200").kv_cache.max_model_len
    assert 8_192 < length < 131_072
    assert plan_of(f"{command} {length}", "8xH200").kv_cache.max_concurrent_sequences == 1
    with pytest.raises(NoFeasiblePlan, match="tokens would fit"):
        plan_of(f"{command} {length * 5 // 4}", "8xH200")


def test_a_command_that_does_not_fit_says_where_it_breaks() -> None:
    with pytest.raises(NoFeasiblePlan, match=r"nearest is TP 8.*GiB short"):
        plan_of("vllm serve moonshotai/Kimi-K2-Instruct --tensor-parallel-size 8", "8xH100")


def test_a_command_with_illegal_degrees_says_which() -> None:
    with pytest.raises(NoFeasiblePlan, match="64 attention heads do not divide by tensor parallel 6"):
        plan_of("vllm serve moonshotai/Kimi-K2-Instruct -tp 6 -pp 3", "24xH100")


def test_a_command_for_more_gpus_than_there_are_says_so() -> None:
    with pytest.raises(NoFeasiblePlan, match="needs 16 GPUs, and 8"):
        plan_of("vllm serve moonshotai/Kimi-K2-Instruct -tp 8 -pp 2", "8xH100")


def test_a_custom_division_of_layers_comes_from_the_environment() -> None:
    plan = plan_of(
        "VLLM_PP_LAYER_PARTITION=30,31 vllm serve moonshotai/Kimi-K2-Instruct -tp 8 -pp 2 --max-model-len 32768",
        "16xH100",
    )
    assert [rank.layers for rank in plan.ranks if rank.tensor_rank == 0] == [(0, 30), (30, 61)]
    assert plan.engine.env["VLLM_PP_LAYER_PARTITION"] == "30,31"


@pytest.mark.parametrize(
    ("partition", "expected"), [("31,31", "add up to 61"), ("61", "add up to 61"), ("a,b", "must be numbers")]
)
def test_a_division_that_does_not_add_up_is_refused(partition: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan_of(
            f"VLLM_PP_LAYER_PARTITION={partition} vllm serve moonshotai/Kimi-K2-Instruct -tp 8 -pp 2",
            "16xH100",
        )


def test_redundant_experts_are_placed_and_need_the_balancer() -> None:
    command = (
        "vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 -ep --enable-eplb --max-model-len 8192 "
        "--eplb-config.num_redundant_experts 8"
    )
    plan = plan_of(command, "8xH200")
    assert plan.ranks[0].experts == tuple(range(33))
    assert plan.ranks[7].experts == (*range(231, 256), *range(8))
    with pytest.raises(ConfigError, match="needs --enable-eplb"):
        plan_of(command.replace("--enable-eplb ", ""), "8xH200")


def test_round_robin_placement_deals_experts_out_where_vllm_would() -> None:
    """DeepSeek has expert groups; Mixtral has none, and vLLM falls back to linear there."""
    dealt = plan_of(
        "vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 -ep --expert-placement-strategy round_robin --max-model-len 8192",
        "8xH200",
    )
    assert dealt.ranks[0].experts == tuple(range(0, 256, 8))
    linear = plan_of(
        "vllm serve mistralai/Mixtral-8x7B-Instruct-v0.1 -tp 2 -ep --expert-placement-strategy round_robin",
        "2xH200",
    )
    assert linear.ranks[0].experts == (0, 1, 2, 3)


def test_speculation_by_the_models_own_layers_is_planned_and_by_a_draft_model_said_not_to_be() -> None:
    command = "vllm serve deepseek-ai/DeepSeek-V3 -tp 8 --max-model-len 8192"
    plain = plan_of(command, "8xH200")
    own = plan_of(f"{command} --speculative-config.method mtp --speculative-config.num_speculative_tokens 1", "8xH200")
    assert own.ranks[0].memory.weights_bytes > plain.ranks[0].memory.weights_bytes
    assert own.engine.args["speculative_config"] == {"method": "mtp", "num_speculative_tokens": 1}
    draft = plan_of(f'{command} --speculative-config \'{{"model": "d", "num_speculative_tokens": 3}}\'', "8xH200")
    assert "draft_model_not_planned" in {warning.code for warning in draft.warnings}


def test_a_switch_of_vllms_takes_no_value_even_if_it_is_not_planned_for() -> None:
    read = read_command("vllm serve --enable-log-deltas --disable-custom-all-reduce m -tp 2")
    assert read.model == "m"
    assert read.others["disable_custom_all_reduce"] is True


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--tensor-paralel-size", "no option of plan, and vLLM has .* did you mean --tensor-parallel-size"),
        ("--seed", "--seed does not bear on memory or layout: give it to deploy"),
        ("--no-enable-mfu-metrics", "--enable-mfu-metrics does not bear on memory or layout"),
        ("--colour", "vLLM has no engine argument --colour"),
    ],
)
def test_an_argument_that_cannot_be_fixed_says_why(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_arguments(["m", name, *([] if name.startswith("--no") else ["1"])])


def test_a_slip_in_a_command_is_not_taken_for_an_option_of_the_server() -> None:
    """`--tensor-paralel-size 8` set aside would be an answer about one GPU."""
    with pytest.raises(ConfigError, match="--tensor-paralel-size; did you mean --tensor-parallel-size"):
        read_command("vllm serve m --tensor-paralel-size 8")
    assert read_command("vllm serve m --disable-log-requests --uvicorn-log-level info").others == {
        "disable_log_requests": True,
        "uvicorn_log_level": "info",
    }
