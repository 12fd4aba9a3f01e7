"""Engine arguments: the engine's own defaults by GPU and model, and values it would refuse."""

from __future__ import annotations

import pytest

from orchestrator.catalog.gpus import cpu_device, resolve_gpu
from orchestrator.catalog.registry import resolve_model
from orchestrator.errors import ConfigError
from orchestrator.memory.engine_args import EngineArgs, ResolvedArgs
from orchestrator.memory.layout import Layout
from orchestrator.memory.overhead import num_graph_sizes
from orchestrator.units import GIB


def resolved(name: str = "kimi-k2", gpu: str = "H100", layout: Layout = Layout(), **engine: object) -> ResolvedArgs:
    return EngineArgs(**engine).resolve(resolve_model(name), layout, resolve_gpu(gpu))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gpu", "sequences", "tokens"),
    [
        ("H100", 1024, 8192),
        ("H200", 1024, 8192),
        ("B200", 1024, 16384),
        ("A100-80G", 256, 2048),
        ("L40S", 256, 2048),
    ],
)
def test_batch_limits_depend_on_the_gpu(gpu: str, sequences: int, tokens: int) -> None:
    """As vLLM's API server sets them; A100s get the small ones whatever their memory."""
    args = resolved(gpu=gpu)
    assert (args.max_num_seqs, args.max_num_batched_tokens) == (sequences, tokens)


def test_a_default_batch_is_no_longer_than_all_sequences() -> None:
    """Two sequences of 100 tokens make no batch of 8192."""
    args = resolved(max_num_seqs=2, max_model_len=100)
    assert args.max_num_batched_tokens == 200
    assert resolved(max_num_batched_tokens=64).max_num_seqs == 64


def test_the_cpu_platform_has_limits_per_worker() -> None:
    """2048 tokens and 128 sequences for each rank of a replica."""
    args = EngineArgs().resolve(resolve_model("mixtral-8x7b"), Layout(tensor=2), cpu_device(GIB))
    assert (args.max_num_seqs, args.max_num_batched_tokens, args.block_size) == (256, 4096, 128)


@pytest.mark.parametrize(
    ("name", "gpu", "cache", "dtype", "block_size"),
    [
        ("kimi-k2", "H100", "auto", "bfloat16", 16),
        ("kimi-k2", "H100", "fp8", "fp8", 64),
        ("kimi-k2", "B200", "auto", "bfloat16", 32),
        ("deepseek-v3.2", "H200", "fp8", "fp8_ds_mla", 64),
        ("deepseek-v3.2", "B200", "fp8", "fp8", 64),
        ("deepseek-v3.2", "H200", "bfloat16", "bfloat16", 64),
        ("mixtral-8x7b", "A100", "auto", "bfloat16", 16),
        ("mixtral-8x7b", "H100", "fp8_e4m3", "fp8", 16),
    ],
)
def test_the_cache_has_the_form_of_the_attention_backend(
    name: str, gpu: str, cache: str, dtype: str, block_size: int
) -> None:
    """Type and block size follow from what vLLM picks for the GPU."""
    args = resolved(name, gpu, kv_cache_dtype=cache)
    assert (args.kv_cache_dtype, args.block_size) == (dtype, block_size)


def test_quantisation_while_loading_is_asked_for_by_name() -> None:
    """`--quantization fp8` on a BF16 checkpoint; one that is stored quantised stays as it is."""
    online = resolved("mistralai/Mixtral-8x22B-Instruct-v0.1", quantization="fp8").quantization
    assert online is not None
    assert not online.in_checkpoint
    assert resolved("kimi-k2", quantization="fp8").quantization == resolve_model("kimi-k2").quantization
    assert resolved("mistralai/Mixtral-8x22B-Instruct-v0.1").quantization is None


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"dtype": "fp8"}, "asked for by quantization"),
        ({"gpu_memory_utilization": 1.2}, "gpu_memory_utilization is 1.2"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization is 0.0"),
        ({"max_model_len": -1}, "max_model_len is -1"),
        ({"kv_cache_dtype": "fp9"}, "kv_cache_dtype 'fp9'"),
    ],
)
def test_a_value_the_engine_would_refuse_is_named(engine: dict[str, object], said: str) -> None:
    """One line with the argument and the way out."""
    with pytest.raises(ConfigError, match=said) as refused:
        resolved(**engine)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


def test_a_stored_scheme_cannot_be_made_while_loading() -> None:
    """INT4 needs a checkpoint; the message says what could be done instead."""
    with pytest.raises(ConfigError, match="needs a checkpoint stored so"):
        resolved("mistralai/Mixtral-8x22B-Instruct-v0.1", quantization="awq")


@pytest.mark.parametrize(("largest", "sizes"), [(0, 0), (1, 1), (4, 3), (16, 5), (256, 35), (512, 51)])
def test_graphs_are_captured_for_the_engines_sizes(largest: int, sizes: int) -> None:
    """1, 2, 4, by eights below 256 and by sixteens above: 51 up to 512, as vLLM's progress bar shows."""
    assert num_graph_sizes(largest) == sizes


def test_graphs_reach_twice_the_sequences() -> None:
    """At most 512, at most 1024 on data-centre Blackwell, none in eager mode."""
    assert resolved(max_num_seqs=16).max_cudagraph_capture_size == 32
    assert resolved().max_cudagraph_capture_size == 512
    assert resolved(gpu="B200").max_cudagraph_capture_size == 1024
    assert resolved(enforce_eager=True).max_cudagraph_capture_size == 0
