"""Engine arguments: vLLM's names, kinds and spellings, refused before anything starts."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.engine_arguments import check, engine_arguments, read_words
from orchestrator.errors import ConfigError


def read(words: list[str]) -> dict[str, Any]:
    found = read_words(words)
    assert not found.words
    assert not found.others
    return dict(found.arguments)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--max-num-seqs 8", {"max_num_seqs": 8}),
        ("--max_num_seqs=8", {"max_num_seqs": 8}),
        ("--max-model-len 2048", {"max_model_len": 2048}),
        ("--max-model-len 16k", {"max_model_len": 16_000}),
        ("--max-model-len 16K", {"max_model_len": 16_384}),
        ("--max-model-len 1.5k", {"max_model_len": 1_500}),
        ("--max-model-len auto", {"max_model_len": -1}),
        (
            "-tp 2 -ep -dcp=4",
            {"tensor_parallel_size": 2, "enable_expert_parallel": True, "decode_context_parallel_size": 4},
        ),
        ("-cc.mode 3", {"compilation_config": {"mode": 3}}),
        (
            "--compilation-config.pass_config.fuse_norm_quant true --compilation-config.mode 3",
            {"compilation_config": {"pass_config": {"fuse_norm_quant": True}, "mode": 3}},
        ),
        (
            "--compilation-config.custom_ops+ none,+rms_norm",
            {"compilation_config": {"custom_ops": ["none", "+rms_norm"]}},
        ),
        ("--kv-transfer-config.kv_buffer_size 1k", {"kv_transfer_config": {"kv_buffer_size": 1000}}),
        (
            '--eplb-config {"window_size":5} --eplb-config.num_redundant_experts 2',
            {"eplb_config": {"window_size": 5, "num_redundant_experts": 2}},
        ),
        ("--pt-load-map-location cuda", {"pt_load_map_location": "cuda"}),
        ('--pt-load-map-location {"cuda:1":"cuda:0"}', {"pt_load_map_location": {"cuda:1": "cuda:0"}}),
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
    assert read(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tensor-parallel-size 0", "'0' is not a whole number of at least 1"),
        ("--gpu-memory-utilization 1.5", "'1.5' is not above 0 and at most 1"),
        ("--max-model-len 1.5K", "--max-model-len: '1.5K' is not a whole number"),
        ("--max-model-len -2", "'-2' is not a whole number"),
        ("--seed.x 5", "--seed has no 'x'; it must be a whole number"),
        ("--hf-overrides [] --hf-overrides.x 5", "which has no 'x'; it must be a JSON object"),
        ("--no-enable-expert-parallel=true", "--no-enable-expert-parallel takes no value"),
        ("--max-num-seqs", "--max-num-seqs needs a value"),
        ("--max-num-seqs --seed 1", "--max-num-seqs needs a value"),
        ("--max-num-seqs many", "--max-num-seqs: 'many' is not a whole number"),
        ("--max-num-seqs 8.5", "--max-num-seqs: '8.5' is not a whole number"),
        ("--max-model-len 16x", "--max-model-len: '16x' is not a whole number such as 2048, 16k or auto"),
        ("--max-model-len 1.00001k", "'1.00001k' is not a whole number"),
        ("--gpu-memory-utilization nan", "'nan' is not above 0 and at most 1"),
        ("--gpu-memory-utilization inf", "'inf' is not above 0 and at most 1"),
        ("--enable-expert-parallel=perhaps", "'perhaps' is not true or false"),
        (
            "--dtype fp8",
            "--dtype: 'fp8' is not one of auto, bfloat16.*; FP8 weights are asked for by --quantization fp8",
        ),
        ("--cudagraph-capture-sizes one", "'one' is not a whole number"),
        ("--cudagraph-capture-sizes", "needs at least one value"),
        ("--hf-overrides {", "'{' is not a JSON object"),
        ("--hf-overrides 5", "'5' is not a JSON object"),
        ("--compilation-config {mode:3}", "'{mode:3}' is not a JSON object"),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_the_mend(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as failure:
        read(words.split())
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
        ({"gpu_memory_utilization": float("nan")}, "nan is not above 0 and at most 1"),
        ({"max_num_seqs": 0}, "0 is not a whole number of at least 1"),
        ({"compilation_config": 3}, "3 is not a JSON object"),
        ({"max_modle_len": 8}, "no engine argument --max-modle-len; did you mean --max-model-len"),
        ({"cpu_offload_gb": 10**400}, "is not a number of at least 0"),
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
        read(["--hf-overrides", "[" * 100_000])


@given(st.sampled_from(sorted(engine_arguments())), st.text(max_size=20))
def test_any_value_is_taken_or_refused_in_one_line(name: str, text: str) -> None:
    """Taken, or refused with `ConfigError`: nothing else is ever raised."""
    with contextlib.suppress(ConfigError):
        assert set(read([f"--{name}={text}"])) == {name}
