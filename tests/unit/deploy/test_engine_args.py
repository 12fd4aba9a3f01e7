"""Engine arguments: vLLM's names, kinds and spellings, refused before anything starts."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.engine_args import check, engine_arguments, parse_command_line
from orchestrator.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max-num-seqs 8", {"max_num_seqs": 8}),
        ("--max_num_seqs=8", {"max_num_seqs": 8}),
        ("--max-model-len 2048", {"max_model_len": 2048}),
        ("--max-model-len 16k", {"max_model_len": 16_000}),
        ("--max-model-len 16K", {"max_model_len": 16_384}),
        ("--max-model-len 1.5k", {"max_model_len": 1_500}),
        ("--max-model-len auto", {"max_model_len": "auto"}),
        ("--max-model-len -1", {"max_model_len": -1}),
        ("--gpu-memory-utilization 0.92", {"gpu_memory_utilization": 0.92}),
        ("--enable-expert-parallel", {"enable_expert_parallel": True}),
        ("--no-enable-expert-parallel", {"enable_expert_parallel": False}),
        ("--enable-expert-parallel=false", {"enable_expert_parallel": False}),
        ("--dtype float32", {"dtype": "float32"}),
        ("--cudagraph-capture-sizes 1 2 4", {"cudagraph_capture_sizes": [1, 2, 4]}),
        ("--lora-target-modules q_proj k_proj --seed 1", {"lora_target_modules": ["q_proj", "k_proj"], "seed": 1}),
        ('--hf-overrides {"num_experts":8}', {"hf_overrides": {"num_experts": 8}}),
        ('--compilation-config {"mode":3}', {"compilation_config": {"mode": 3}}),
        ("--quantization fp8", {"quantization": "fp8"}),
        ("--seed 1 --seed 2", {"seed": 2}),
        ("", {}),
    ],
)
def test_arguments_are_read_as_vllms_command_line_reads_them(words: str, expected: dict[str, Any]) -> None:
    assert parse_command_line(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-modle-len 8", "no engine argument --max-modle-len; did you mean --max-model-len"),
        ("--no-max-model-len", "no engine argument --no-max-model-len"),
        ("--zzzzzz 1", "no engine argument --zzzzzz$"),
        ("--no-enable-expert-parallel=true", "--no-enable-expert-parallel takes no value"),
        ("--max-num-seqs", "--max-num-seqs needs a value"),
        ("--max-num-seqs --seed 1", "--max-num-seqs needs a value"),
        ("--max-num-seqs many", "--max-num-seqs: 'many' is not a whole number"),
        ("--max-num-seqs 8.5", "--max-num-seqs: '8.5' is not a whole number"),
        ("--max-model-len 16x", "--max-model-len: '16x' is not a whole number such as 2048, 16k or auto"),
        ("--max-model-len 1.00001k", "'1.00001k' is not a whole number"),
        ("--gpu-memory-utilization nan", "'nan' is not a number"),
        ("--gpu-memory-utilization inf", "'inf' is not a number"),
        ("--enable-expert-parallel=perhaps", "'perhaps' is not true or false"),
        ("--dtype fp8", "--dtype: 'fp8' is not one of auto, bfloat16"),
        ("--cudagraph-capture-sizes one", "'one' is not a whole number"),
        ("--cudagraph-capture-sizes", "needs at least one value"),
        ("--hf-overrides {", "'{' is not a JSON object"),
        ("--hf-overrides 5", "'5' is not a JSON object"),
        ("--compilation-config {mode:3}", "'{mode:3}' is not text, or a whole JSON object"),
        ("max_num_seqs 8", "'max_num_seqs' is not an option"),
        ("-tp 2", "'-tp' is not an option"),
        ("--model other", "--model is set by deploy itself: name the model"),
        ("--served-model-name x", "is set by deploy itself: use --name"),
        ("--distributed-executor-backend mp", "is set by deploy itself"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_the_mend(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        parse_command_line(words.split())
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        ({"max_model_len": "16K"}, {"max_model_len": 16_384}),
        ({"max-model-len": 2048}, {"max_model_len": 2048}),
        ({"enable_expert_parallel": False}, {"enable_expert_parallel": False}),
        ({"gpu_memory_utilization": 1}, {"gpu_memory_utilization": 1.0}),
        ({"cudagraph_capture_sizes": [1, 2]}, {"cudagraph_capture_sizes": [1, 2]}),
        ({"hf_overrides": {"a": 1}}, {"hf_overrides": {"a": 1}}),
        ({"compilation_config": {"mode": 3}}, {"compilation_config": {"mode": 3}}),
    ],
)
def test_a_file_may_hold_values_of_the_kind_or_their_text(
    given_value: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert check(given_value) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_num_seqs": True}, "True is not a whole number"),
        ({"max_num_seqs": 8.5}, "8.5 is not a whole number"),
        ({"max_num_seqs": None}, "None is not a whole number"),
        ({"enable_expert_parallel": 1}, "1 is not true or false"),
        ({"gpu_memory_utilization": float("nan")}, "'nan' is not a number"),
        ({"lora_target_modules": {"a": 1}}, "is not a list"),
        ({"cudagraph_capture_sizes": [1, "x"]}, "'x' is not a whole number"),
        ({"dtype": 16}, "'16' is not one of auto"),
        ({"hf_overrides": 5}, "5 is not a JSON object"),
        ({5: 1}, "no engine argument --5"),
    ],
)
def test_a_wrong_value_in_a_file_is_refused(arguments: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(arguments)


def test_a_huge_wrong_value_makes_a_short_message() -> None:
    """YAML's aliases can make a value whose text would not fit into memory."""
    bomb: Any = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    with pytest.raises(ConfigError) as failure:
        check({"max_num_seqs": bomb})
    assert len(str(failure.value)) < 1000


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not a JSON object"):
        parse_command_line(["--hf-overrides", "[" * 100_000])


@given(st.sampled_from(sorted(engine_arguments())), st.text(max_size=20))
def test_any_value_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    """Taken, or refused with `ConfigError`: nothing else is ever raised."""
    with contextlib.suppress(ConfigError):
        assert set(parse_command_line([f"--{name}={text}"])) == {name}
