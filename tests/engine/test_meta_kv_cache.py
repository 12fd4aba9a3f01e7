"""The planner's KV arithmetic held to vLLM's own: blocks, tokens and concurrency, exactly.

vLLM's model classes are built on the meta device for every stage; their cache specs go through vLLM's own
`get_kv_cache_configs` with a given budget a rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")

from orchestrator.catalog.gpus import cpu_device
from orchestrator.catalog.models import ModelSpec
from orchestrator.memory.engine_args import EngineArgs
from orchestrator.memory.kv_cache import KvCapacity, kv_capacity
from orchestrator.memory.layout import Layout
from orchestrator.units import GIB
from tests.engine.meta_cache import EngineCapacity, engine_capacity
from tests.engine.test_meta_parameters import PUBLISHED, unquantised

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SMALL = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "num_key_value_heads": 4}
SLIDING = {**SMALL, "num_hidden_layers": 6, "vocab_size": 1000, "max_position_embeddings": 32768}
DENSE: Mapping[str, Mapping[str, Any]] = {
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096},
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "use_sliding_window": False,
        "sliding_window": 4096,
    },
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "sliding_window": 1024,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "sliding_window": 2047,
        "pad_token_id": 0,
    },
    "mistral without": {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": 0,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 64},
}


def ours(config: Mapping[str, Any], layout: Layout, engine: EngineArgs, pool_bytes: int) -> KvCapacity:
    spec = ModelSpec.from_hf(config, name="test", source="test")
    args = engine.resolve(spec, layout, cpu_device(pool_bytes))
    return kv_capacity(spec, layout, args, [pool_bytes] * layout.pipeline)


def same(capacity: KvCapacity, engine: EngineCapacity) -> bool:
    return (
        capacity.num_blocks == engine.num_blocks
        and capacity.tokens == engine.tokens
        and capacity.max_concurrency == engine.max_concurrency
    )


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("layout", [Layout(tensor=2), Layout(tensor=4, pipeline=2)])
def test_capacity_is_the_engines_own(name: str, layout: Layout, tmp_path: Path) -> None:
    """For every architecture, sliding, chunked and sparse attention included, capacity agrees exactly."""
    config = unquantised(name)
    engine = EngineArgs(max_model_len=8_000, max_num_batched_tokens=2048)
    expected = engine_capacity(config, layout, engine, 20 * GIB + 12345, tmp_path)
    assert same(ours(config, layout, engine, 20 * GIB + 12345), expected)


def test_decode_context_ranks_share_tokens_as_in_the_engine(tmp_path: Path) -> None:
    """Two ranks that share the tokens of a sequence."""
    config, layout = unquantised("moonshotai--Kimi-K2-Instruct"), Layout(tensor=4, decode_context=2)
    engine = EngineArgs(max_model_len=10_001, max_num_batched_tokens=2048)
    expected = engine_capacity(config, layout, engine, 3 * GIB, tmp_path)
    assert same(ours(config, layout, engine, 3 * GIB), expected)


@pytest.mark.parametrize("name", DENSE)
def test_windows_are_read_as_the_engine_reads_them(name: str, tmp_path: Path) -> None:
    """A sliding window holds for all layers of Mistral, and for none of Qwen2 where it is switched off."""
    config = {**SLIDING, **DENSE[name]}
    engine = EngineArgs(max_model_len=16_384, max_num_batched_tokens=2048)
    expected = engine_capacity(config, Layout(), engine, GIB, tmp_path)
    assert same(ours(config, Layout(), engine, GIB), expected)
