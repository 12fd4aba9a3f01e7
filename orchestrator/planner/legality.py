"""Which layouts vLLM can build for a model, and why not the others.

Rules of vLLM 0.29: `ModelConfig.verify_with_parallel_config`, `ParallelConfig._validate_parallel_config`,
`validate_fp8_block_shape`, `refine_fp8_moe_block_shape` and the division of weights itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization
from orchestrator.catalog.shapes import GroupedAttention
from orchestrator.errors import ConfigError
from orchestrator.memory.layout import Layout
from orchestrator.memory.shards import Cut, cut_of, shard_shape
from orchestrator.memory.weights import Group, Split, Weight, embedding_weights, head_weights, layer_weights

# vLLM refines the scales of cut FP8 experts down to blocks of this size, and refuses below it.
SMALLEST_REFINED_BLOCK = 32
# Outputs of these are merged with others, for which vLLM lets a block be cut.
_MERGED = ("gate_proj", "up_proj", "self_attn.k_proj", "self_attn.v_proj")


@dataclass(frozen=True)
class Refusal:
    """Why a layout is out: a code, a sentence with the numbers, and the bytes a rank lacks, if that is it.

    `largest_context` is what would fit where the context is the only thing that does not.
    """

    code: str
    reason: str
    missing_bytes: int | None = None
    largest_context: int | None = None


def refuse(spec: ModelSpec, layout: Layout, quantization: Quantization | None, by_choice: bool) -> Refusal | None:
    """The first rule that the layout breaks, or None.

    `by_choice` says that the user fixed the layout: then a layout that vLLM builds, though badly, passes.
    """
    return next(_refusals(spec, layout, quantization, by_choice), None)


def _refusals(spec: ModelSpec, layout: Layout, quantization: Quantization | None, by_choice: bool) -> Iterator[Refusal]:
    yield from _stages(spec, layout)
    yield from _heads(spec, layout)
    yield from _experts(spec, layout)
    yield from _decode_context(spec, layout)
    yield from _widths(spec, cut_of(spec, layout), quantization, by_choice)


def _stages(spec: ModelSpec, layout: Layout) -> Iterator[Refusal]:
    if layout.pipeline > spec.num_layers:
        yield Refusal("more_stages_than_layers", f"{layout.pipeline} stages, but only {spec.num_layers} layers to hold")


def _heads(spec: ModelSpec, layout: Layout) -> Iterator[Refusal]:
    heads, tensor = spec.attention.num_heads, layout.tensor
    if heads % tensor:
        yield Refusal(
            "heads_not_divisible",
            f"{heads} attention heads do not divide by tensor parallel {tensor}; {_divisors(heads)} do",
        )
    if isinstance(spec.attention, GroupedAttention):
        kv_heads = spec.attention.num_kv_heads
        if kv_heads % tensor and tensor % kv_heads:
            yield Refusal(
                "kv_heads_not_divisible",
                f"{kv_heads} key-value heads can be neither divided over nor copied to {tensor} ranks",
            )


def _experts(spec: ModelSpec, layout: Layout) -> Iterator[Refusal]:
    if layout.expert and spec.moe is None:
        yield Refusal(
            "expert_parallel_without_moe",
            f"{spec.name} is dense: it has no experts to place; leave enable_expert_parallel out",
        )
    if layout.redundant_experts and not layout.expert:
        yield Refusal("redundant_experts_without_expert_parallel", "redundant experts need expert parallel")
    if spec.moe is None or not layout.expert:
        return
    ranks, experts = layout.expert_parallel_size, spec.moe.num_experts
    if experts < ranks:
        yield Refusal("more_ranks_than_experts", f"{ranks} ranks for {experts} experts: some would hold none")
    if layout.redundant_experts and (experts + layout.redundant_experts) % ranks:
        yield Refusal(
            "redundant_experts_uneven",
            f"{experts} experts and {layout.redundant_experts} copies do not divide by {ranks} ranks",
        )


def _decode_context(spec: ModelSpec, layout: Layout) -> Iterator[Refusal]:
    shares, tensor = layout.decode_context, layout.tensor
    if shares == 1:
        return
    if tensor % shares:
        yield Refusal("decode_context_not_divisible", f"tensor parallel {tensor} does not divide by {shares}")
    if isinstance(spec.attention, GroupedAttention):
        most = tensor // spec.attention.num_kv_heads
        if shares > most:
            yield Refusal(
                "decode_context_too_large",
                f"decode context parallel {shares} needs as many copies of each of the "
                f"{spec.attention.num_kv_heads} key-value heads, and tensor parallel {tensor} makes {most}",
            )


def _widths(spec: ModelSpec, cut: Cut, quantization: Quantization | None, by_choice: bool) -> Iterator[Refusal]:
    refusal = _width_refusal(spec, cut, quantization, by_choice)
    if refusal is not None:
        yield refusal


@lru_cache(maxsize=4096)
def _width_refusal(spec: ModelSpec, cut: Cut, quantization: Quantization | None, by_choice: bool) -> Refusal | None:
    for name, weight in _named_weights(spec):
        try:
            rows, columns = shard_shape(weight, cut)
        except ConfigError as error:
            return Refusal("width_not_divisible", str(error))
        if quantization is not None and weight.linear:
            refusal = _block_refusal(name, weight, (rows, columns), quantization, by_choice)
            if refusal is not None:
                return refusal
    return None


@lru_cache(maxsize=64)
def _named_weights(spec: ModelSpec) -> tuple[tuple[str, Weight], ...]:
    """One layer of every kind, and the two ends, with full names in the checkpoint."""
    kinds = {(layer.sparse, layer.indexer): index for index, layer in reversed(list(enumerate(spec.layers)))}
    ends = (*embedding_weights(spec), *head_weights(spec))
    return tuple((weight.module, weight) for weight in ends) + tuple(
        (f"{spec.prefix}.layers.{index}.{weight.module}", weight)
        for index in sorted(kinds.values())
        for weight in layer_weights(spec, spec.layers[index])
    )


def _block_refusal(
    name: str, weight: Weight, shard: tuple[int, int], quantization: Quantization, by_choice: bool
) -> Refusal | None:
    """Whether cutting the weight cuts a block or a group that shares a scale."""
    scheme = quantization.scheme_for(name)
    if scheme is None or weight.split is Split.WHOLE or scheme.granularity not in ("block", "group"):
        return None
    if scheme.format in ("mxfp4", "nvfp4", "mxfp8"):
        return None  # vLLM pads these to the block
    axis = 1 if weight.split is Split.COLUMNS else 0
    width, block = shard[axis], scheme.block[axis]
    if width == (weight.rows, weight.columns)[axis] or width % block == 0:
        return None
    if scheme.granularity == "block" and weight.group is Group.ROUTED_EXPERT:
        return _expert_block_refusal(width, block, by_choice)
    if axis == 0 and (scheme.granularity == "group" or weight.module.endswith(_MERGED)):
        return None
    return Refusal(
        "quantization_block_cut",
        f"{weight.module}: {width} wide on each rank, not a multiple of its quantisation block of {block}",
    )


def _expert_block_refusal(width: int, block: int, by_choice: bool) -> Refusal | None:
    refined = math.gcd(width, block)
    if refined >= SMALLEST_REFINED_BLOCK and by_choice:
        return None
    sentence = (
        f"experts would be {width} wide on each rank, not a multiple of their FP8 block of {block}; "
        "expert parallel keeps them whole"
    )
    if refined >= SMALLEST_REFINED_BLOCK:
        sentence += f" (vLLM 0.29 would refine the blocks to {refined}, on slower kernels; older ones refuse)"
    return Refusal("fp8_block_cut", sentence)


def _divisors(number: int) -> str:
    small = [str(size) for size in range(1, min(number, 16) + 1) if number % size == 0]
    return ", ".join(small)
