"""The KV cache: bytes a token, blocks of a pool, sequences and the largest context that fit.

The rules are vLLM 0.29's: page sizes in vllm/v1/kv_cache_interface.py, grouping, admission and the logged
capacity in vllm/v1/core/kv_cache_utils.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.shapes import DecoderLayer, GroupedAttention, LatentAttention
from orchestrator.memory.engine_args import ResolvedArgs
from orchestrator.memory.layout import Layout

CACHE_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}
# FlashMLA's packed entry: 512 FP8 latents, 4 float32 scales, 64 BF16 rotary values
# (vllm/v1/attention/backends/mla/flashmla_sparse.py).
PACKED_LATENT_BYTES = 656
# The indexer keeps its keys in FP8 whatever the cache's type, with a float32 scale per 128 values
# (`Indexer` in vllm/model_executor/models/deepseek_v2.py).
INDEXER_SCALE_GROUP = 128


@dataclass(frozen=True)
class CacheGroup:
    """Layers that share a block table, and how far back their tokens are kept."""

    # (layer, bytes a token takes in it)
    layers: tuple[tuple[int, int], ...]
    window: int | None = None
    chunked: bool = False


@dataclass(frozen=True)
class KvCapacity:
    """What a pool holds."""

    num_blocks: int
    block_size: int
    # Tokens as vLLM logs them: concurrency times the maximum length.
    tokens: int
    # Sequences of full length at once; below 1 the engine refuses to start.
    max_concurrency: float
    # The longest context one sequence could have, up to the model's own limit.
    largest_context: int
    # Bytes that one sequence of full length needs on the tightest stage, and what that stage has.
    needed_bytes: int
    available_bytes: int

    @property
    def max_sequences(self) -> int:
        return int(self.max_concurrency)

    @property
    def fits(self) -> bool:
        return self.missing_bytes == 0

    @property
    def missing_bytes(self) -> int:
        return max(0, self.needed_bytes - self.available_bytes)


def layer_token_bytes(spec: ModelSpec, layout: Layout, cache_dtype: str, layer: DecoderLayer) -> int:
    """Bytes one token takes in one layer on one rank, the indexer's included."""
    attention = spec.attention
    if isinstance(attention, GroupedAttention):
        heads = max(1, attention.num_kv_heads // layout.tensor)
        return 2 * heads * attention.head_dim * CACHE_DTYPE_BYTES[cache_dtype]
    return _latent_token_bytes(attention, cache_dtype) + _indexer_token_bytes(attention, layer)


def _latent_token_bytes(attention: LatentAttention, cache_dtype: str) -> int:
    """One vector for all heads, whole on every rank of a tensor group."""
    if cache_dtype == "fp8_ds_mla":
        return PACKED_LATENT_BYTES
    return (attention.kv_lora_rank + attention.qk_rope_head_dim) * CACHE_DTYPE_BYTES[cache_dtype]


def _indexer_token_bytes(attention: LatentAttention, layer: DecoderLayer) -> int:
    if attention.indexer is None or not layer.indexer:
        return 0
    return attention.indexer.head_dim + attention.indexer.head_dim // INDEXER_SCALE_GROUP * 4


def kv_bytes_per_token(spec: ModelSpec, layout: Layout, stage: int, args: ResolvedArgs) -> int:
    """Bytes a token within every window takes on one rank of a stage.

    Decode-context ranks share the tokens of a sequence, so each keeps one in `decode_context` of them;
    this is the cost of a token kept.
    """
    first, end = layout.stage_layers(spec.num_layers)[stage]
    layers = _cached_layers(spec, args)
    end = len(layers) if end == spec.num_layers else end
    return sum(layer_token_bytes(spec, layout, args.kv_cache_dtype, layer) for layer in layers[first:end])


def _cached_layers(spec: ModelSpec, args: ResolvedArgs) -> tuple[DecoderLayer, ...]:
    """Layers with a cache: the model's, and where it speculates its prediction layers on the last stage."""
    predicting = spec.num_mtp_layers if args.args.num_speculative_tokens else 0
    return spec.layers + spec.layers[-1:] * predicting


def kv_capacity(
    spec: ModelSpec, layout: Layout, args: ResolvedArgs, available_bytes_by_stage: Sequence[int]
) -> KvCapacity:
    """What the pools of a replica's stages hold together.

    `available_bytes_by_stage` is the smallest pool of each stage. Every rank gets as many blocks as the
    tightest rank can hold, so the tightest stage decides.
    """
    pages = _stage_pages(spec, layout, args)
    blocks = [max(0, available) // page for available, page in zip(available_bytes_by_stage, pages, strict=True)]
    num_blocks = args.args.num_gpu_blocks_override or min(blocks)
    tightest = min(range(len(blocks)), key=lambda stage: blocks[stage])
    per_sequence = _blocks_per_sequence(spec, layout, args, args.max_model_len)
    concurrency = num_blocks / per_sequence
    return KvCapacity(
        num_blocks=num_blocks,
        block_size=args.block_size,
        tokens=int(concurrency * args.max_model_len),
        max_concurrency=concurrency,
        largest_context=_largest_context(spec, layout, args, num_blocks),
        # The engine keeps one block back as the null block.
        needed_bytes=(per_sequence + 1) * pages[tightest],
        available_bytes=num_blocks * pages[tightest]
        if args.args.num_gpu_blocks_override
        else available_bytes_by_stage[tightest],
    )


def _largest_context(spec: ModelSpec, layout: Layout, args: ResolvedArgs, num_blocks: int) -> int:
    """By bisection: blocks a sequence needs never fall as it grows. 0 where not one token fits."""
    low, high = 0, spec.max_model_len
    while low < high:
        middle = (low + high + 1) // 2
        if _blocks_per_sequence(spec, layout, args, middle) < num_blocks:
            low = middle
        else:
            high = middle - 1
    return low


@lru_cache(maxsize=65536)
def _stage_pages(spec: ModelSpec, layout: Layout, args: ResolvedArgs) -> tuple[int, ...]:
    """Bytes of one block on a rank of each stage: the largest group's layers, one page each."""
    groups = cache_groups(spec, layout, args)
    stages = layout.stage_layers(spec.num_layers)
    # The last stage holds whatever follows the model's own layers.
    ends = [*(end for _, end in stages[:-1]), len(_cached_layers(spec, args))]
    return tuple(
        max(_group_page(group, first, end, args.block_size) for group in groups)
        for (first, _), end in zip(stages, ends, strict=True)
    )


def _group_page(group: CacheGroup, first: int, end: int, block_size: int) -> int:
    return sum(block_size * cost for layer, cost in group.layers if first <= layer < end)


@lru_cache(maxsize=65536)
def _blocks_per_sequence(spec: ModelSpec, layout: Layout, args: ResolvedArgs, length: int) -> int:
    in_flight = args.max_concurrent_batches * args.max_num_batched_tokens
    return sum(
        _group_blocks(group, layout, args.block_size, length, in_flight) for group in cache_groups(spec, layout, args)
    )


def _group_blocks(group: CacheGroup, layout: Layout, block_size: int, length: int, in_flight: int) -> int:
    """`max_memory_usage_bytes` of each kind of cache spec, in blocks."""
    if group.window is None:
        share = -(-length // layout.decode_context)
        return -(-share // block_size)
    if group.chunked:
        return -(-min(group.window + in_flight, length) // block_size)
    # A window need not begin at the beginning of a block, hence one more.
    return -(-min(group.window - 1 + in_flight, length) // block_size) + 1


@lru_cache(maxsize=65536)
def cache_groups(spec: ModelSpec, layout: Layout, args: ResolvedArgs) -> tuple[CacheGroup, ...]:
    """Layers by how far back they keep tokens, in groups of equal size.

    `_get_kv_cache_groups_uniform_page_size`: the smallest kind gives the size of a group, unless the
    largest is less than half as large again; then that is the size, and the smaller kind is padded.
    """
    kinds: dict[tuple[int | None, bool], list[tuple[int, int]]] = {}
    for index, layer in enumerate(_cached_layers(spec, args)):
        kind = (layer.window, layer.chunked)
        cost = layer_token_bytes(spec, layout, args.kv_cache_dtype, layer)
        kinds.setdefault(kind, []).append((index, cost))
    if len(kinds) == 1:
        ((window, chunked),) = kinds
        return (CacheGroup(tuple(kinds[window, chunked]), window, chunked),)
    if args.args.disable_hybrid_kv_cache_manager:
        every = sorted(entry for entries in kinds.values() for entry in entries)
        return (CacheGroup(tuple(every)),)
    size = _group_size([len(entries) for entries in kinds.values()])
    return tuple(
        CacheGroup(tuple(entries[start :: -(-len(entries) // size)]), window, chunked)
        for (window, chunked), entries in kinds.items()
        for start in range(-(-len(entries) // size))
    )


def _group_size(counts: Sequence[int]) -> int:
    return max(counts) if max(counts) < min(counts) * 1.5 else min(counts)
