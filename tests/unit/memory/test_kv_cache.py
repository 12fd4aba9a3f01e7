"""KV caches: bytes a token, and what a pool holds, by known figures and by the engine's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.catalog.gpus import resolve_gpu
from orchestrator.catalog.registry import resolve_model
from orchestrator.memory.engine_args import EngineArgs, ResolvedArgs
from orchestrator.memory.kv_cache import cache_groups, kv_bytes_per_token, kv_capacity
from orchestrator.memory.layout import Layout
from orchestrator.units import GIB


def resolved(name: str, layout: Layout = Layout(), gpu: str = "H200", **engine: object) -> ResolvedArgs:
    return EngineArgs(**engine).resolve(resolve_model(name), layout, resolve_gpu(gpu))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "layout", "gpu", "engine", "token_bytes"),
    [
        # 61 layers of 512 latents and 64 rotary values in BF16, whole on every tensor rank.
        ("kimi-k2", Layout(), "H200", {}, 61 * 576 * 2),
        ("kimi-k2", Layout(tensor=8), "H200", {}, 61 * 576 * 2),
        ("kimi-k2", Layout(tensor=8, pipeline=2), "H200", {}, 31 * 576 * 2),
        ("deepseek-v3", Layout(tensor=8), "H200", {"kv_cache_dtype": "fp8"}, 61 * 576),
        # Sparse attention: 128 FP8 keys and a scale more; packed entries of 656 bytes with FP8 on Hopper.
        ("deepseek-v3.2", Layout(tensor=8), "H200", {}, 61 * (576 * 2 + 132)),
        ("deepseek-v3.2", Layout(tensor=8), "H200", {"kv_cache_dtype": "fp8"}, 61 * (656 + 132)),
        ("deepseek-v3.2", Layout(tensor=8), "B200", {"kv_cache_dtype": "fp8"}, 61 * (576 + 132)),
        # Grouped heads are cut, and copied once ranks outnumber them.
        ("llama-3-70b", Layout(tensor=4), "H100", {}, 80 * 2 * 2 * 128 * 2),
        ("qwen3-235b-a22b", Layout(tensor=4), "H200", {}, 94 * 2 * 1 * 128 * 2),
        ("qwen3-235b-a22b", Layout(tensor=8), "H200", {}, 94 * 2 * 1 * 128 * 2),
        ("mixtral-8x22b", Layout(tensor=4), "H100", {"kv_cache_dtype": "fp8"}, 56 * 2 * 2 * 128),
    ],
)
def test_bytes_per_token_are_the_known_ones(
    name: str, layout: Layout, gpu: str, engine: dict[str, object], token_bytes: int
) -> None:
    """MLA is not divided by tensor ranks, grouped heads are, FP8 halves both."""
    args = resolved(name, layout, gpu, **engine)
    assert kv_bytes_per_token(resolve_model(name), layout, 0, args) == token_bytes


def test_speculation_caches_its_own_layers_on_the_last_stage() -> None:
    """DeepSeek's prediction layer has a cache where it is loaded."""
    spec, layout = resolve_model("deepseek-v3"), Layout(tensor=8, pipeline=2)
    plain = resolved("deepseek-v3", layout)
    speculating = resolved("deepseek-v3", layout, num_speculative_tokens=1)
    assert kv_bytes_per_token(spec, layout, 0, speculating) == kv_bytes_per_token(spec, layout, 0, plain)
    last = kv_bytes_per_token(spec, layout, 1, plain)
    assert kv_bytes_per_token(spec, layout, 1, speculating) == last + 576 * 2


def test_tokens_are_concurrency_times_the_longest_sequence() -> None:
    """As vLLM logs them: whole blocks a sequence, then scaled back to its length."""
    spec, layout = resolve_model("kimi-k2"), Layout(tensor=8)
    args = resolved("kimi-k2", layout, max_model_len=1000)
    page = 61 * 576 * 2 * 16
    capacity = kv_capacity(spec, layout, args, [1000 * page + page - 1])
    assert capacity.num_blocks == 1000
    # 63 blocks of 16 for 1000 tokens.
    assert capacity.max_concurrency == 1000 / 63
    assert capacity.tokens == int(1000 / 63 * 1000)
    assert capacity.max_sequences == 15


def test_one_block_is_held_back() -> None:
    """A pool of exactly one sequence does not start: the engine keeps a null block."""
    spec, layout = resolve_model("kimi-k2"), Layout(tensor=8)
    args = resolved("kimi-k2", layout, max_model_len=1600)
    page = 61 * 576 * 2 * 16
    assert not kv_capacity(spec, layout, args, [100 * page]).fits
    assert kv_capacity(spec, layout, args, [100 * page]).missing_bytes == page
    assert kv_capacity(spec, layout, args, [101 * page]).fits


def test_the_tightest_stage_decides() -> None:
    """Every rank gets as many blocks as the one with least room for them."""
    spec, layout = resolve_model("kimi-k2"), Layout(tensor=8, pipeline=2)
    args = resolved("kimi-k2", layout)
    even = kv_capacity(spec, layout, args, [10 * GIB, 10 * GIB])
    tight = kv_capacity(spec, layout, args, [10 * GIB, 2 * GIB])
    assert tight.num_blocks < even.num_blocks
    assert tight.num_blocks == 2 * GIB // (30 * 576 * 2 * 16)


def test_decode_context_ranks_share_a_sequence() -> None:
    """Eight ranks that share tokens hold eight times as many."""
    spec = resolve_model("deepseek-v3")
    alone, shared = Layout(tensor=8), Layout(tensor=8, decode_context=8)
    pools = [40 * GIB]
    one = kv_capacity(spec, alone, resolved("deepseek-v3", alone), pools).max_concurrency
    eight = kv_capacity(spec, shared, resolved("deepseek-v3", shared), pools).max_concurrency
    assert 7.9 < eight / one <= 8


def test_windows_bound_what_a_sequence_holds() -> None:
    """gpt-oss keeps half its layers in full, the other half within 128 tokens and the batches under way."""
    spec, layout = resolve_model("gpt-oss-120b"), Layout()
    groups = cache_groups(spec, layout, resolved("gpt-oss-120b", layout))
    assert [(group.window, len(group.layers)) for group in groups] == [(128, 18), (None, 18)]
    disabled = resolved("gpt-oss-120b", layout, disable_hybrid_kv_cache_manager=True)
    assert [(g.window, len(g.layers)) for g in cache_groups(spec, layout, disabled)] == [(None, 36)]


def test_chunked_layers_come_in_groups_of_the_size_of_the_full_ones() -> None:
    """Llama 4: three chunked layers to a full one make four groups of twelve."""
    spec, layout = resolve_model("llama-4-maverick"), Layout(tensor=8)
    groups = cache_groups(spec, layout, resolved("llama-4-maverick", layout))
    assert [(group.window, group.chunked, len(group.layers)) for group in groups] == [
        (8192, True, 12),
        (8192, True, 12),
        (8192, True, 12),
        (None, False, 12),
    ]


def test_the_largest_context_just_fits() -> None:
    """One token more would not."""
    spec, layout = resolve_model("kimi-k2"), Layout(tensor=8)
    pool = 2 * GIB
    largest = kv_capacity(spec, layout, resolved("kimi-k2", layout), [pool]).largest_context
    assert kv_capacity(spec, layout, resolved("kimi-k2", layout, max_model_len=largest), [pool]).fits
    longer = resolved("kimi-k2", layout, max_model_len=largest + 1)
    assert not kv_capacity(spec, layout, longer, [pool]).fits


def test_no_pool_holds_nothing() -> None:
    """A negative pool is no pool."""
    spec, layout = resolve_model("kimi-k2"), Layout(tensor=8)
    capacity = kv_capacity(spec, layout, resolved("kimi-k2", layout), [-GIB])
    assert (capacity.num_blocks, capacity.tokens, capacity.largest_context) == (0, 0, 0)
    assert not capacity.fits


@given(pool=st.integers(0, 60 * GIB), more=st.integers(0, 20 * GIB))
def test_more_memory_never_holds_less(pool: int, more: int) -> None:
    """Blocks, tokens and the largest context rise with the pool."""
    spec, layout = resolve_model("gpt-oss-20b"), Layout(pipeline=2)
    args = resolved("gpt-oss-20b", layout)
    small = kv_capacity(spec, layout, args, [pool, pool])
    large = kv_capacity(spec, layout, args, [pool + more, pool + more])
    assert large.tokens >= small.tokens
    assert large.largest_context >= small.largest_context
