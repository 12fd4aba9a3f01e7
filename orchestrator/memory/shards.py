"""The part of each weight that one rank holds, counted in parameters and in bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.quantization import Quantization, WeightScheme
from orchestrator.catalog.shapes import DecoderLayer
from orchestrator.errors import ConfigError
from orchestrator.memory.engine_args import DTYPE_BYTES
from orchestrator.memory.layout import Layout
from orchestrator.memory.weights import (
    UNPADDED,
    ExpertPadding,
    Group,
    Split,
    Weight,
    embedding_weights,
    final_norm_weights,
    head_weights,
    layer_weights,
    prediction_weights,
)

# Below it vLLM does not refine the blocks of an FP8 expert.
SMALLEST_REFINED_BLOCK = 32


@dataclass(frozen=True)
class WeightTotals:
    """Parameters as the architecture counts them, and bytes as stored on the device, scales included."""

    parameters: int = 0
    size_bytes: int = 0

    def __add__(self, other: WeightTotals) -> WeightTotals:
        return WeightTotals(self.parameters + other.parameters, self.size_bytes + other.size_bytes)


@dataclass(frozen=True)
class Cut:
    """The sizes of the groups that cut weights, and the experts of one rank."""

    tensor: int = 1
    expert_tensor: int = 1
    shared_expert: int = 1
    local_experts: int = 0
    padding: ExpertPadding = UNPADDED


def cut_of(spec: ModelSpec, layout: Layout, tensor_rank: int = 0, data_rank: int = 0) -> Cut:
    experts = layout.num_local_experts(spec.moe.num_experts, tensor_rank, data_rank) if spec.moe else 0
    shared = 1 if layout.shared_experts_replicated else layout.tensor
    return Cut(layout.tensor, layout.expert_tensor_size, shared, experts)


@lru_cache(maxsize=65536)
def stage_totals(
    spec: ModelSpec,
    quantization: Quantization | None,
    dtype: str,
    layers: tuple[int, int],
    cut: Cut,
) -> WeightTotals:
    """All weights of one rank of the stage that holds the layers [first, end)."""
    first, end = layers
    total = WeightTotals()
    for index in range(first, end):
        total += _layer_totals(spec, quantization, dtype, index, cut)
    is_first, is_last = first == 0, end == spec.num_layers
    for weight in _ends(spec, is_first, is_last):
        total += _shard_totals(weight, weight.module, quantization, dtype, cut)
    return total + vision_totals(spec, dtype, cut)


@lru_cache(maxsize=4096)
def prediction_totals(spec: ModelSpec, quantization: Quantization | None, dtype: str, cut: Cut) -> WeightTotals:
    """The multi-token-prediction layers, which a rank of the last stage loads for speculative decoding.

    Their head is the model's own, and so is their embedding where it is on the same rank.
    """
    total = WeightTotals()
    for index in range(spec.num_layers, spec.num_layers + spec.num_mtp_layers):
        total += _layer_totals(spec, quantization, dtype, index, cut)
        for weight in prediction_weights(spec):
            total += _totals(weight, None, dtype, cut)
    return total


def embedding_totals(spec: ModelSpec, dtype: str, cut: Cut) -> WeightTotals:
    total = WeightTotals()
    for weight in embedding_weights(spec):
        total += _totals(weight, None, dtype, cut)
    return total


def vision_totals(spec: ModelSpec, dtype: str, cut: Cut) -> WeightTotals:
    if spec.vision is None:
        return WeightTotals()
    parameters = spec.vision.whole_parameters + spec.vision.split_parameters // cut.tensor
    return WeightTotals(parameters, parameters * DTYPE_BYTES[dtype])


def layer_scheme(spec: ModelSpec, quantization: Quantization, index: int, module: str) -> WeightScheme | None:
    """The scheme of one linear module of a layer, by its name below the layer."""
    return quantization.scheme_for(f"{spec.prefix}.layers.{index}.{module}")


def _ends(spec: ModelSpec, is_first: bool, is_last: bool) -> tuple[Weight, ...]:
    """Embeddings, last norm and head of a stage."""
    everywhere = spec.ends_on_every_stage
    # A tied head is the embedding, which the last stage then holds too.
    embeds = is_first or everywhere or (is_last and spec.tie_word_embeddings)
    weights: tuple[Weight, ...] = embedding_weights(spec) if embeds else ()
    if is_last or everywhere:
        weights += final_norm_weights(spec) + head_weights(spec)
    return weights


def _layer_totals(spec: ModelSpec, quantization: Quantization | None, dtype: str, index: int, cut: Cut) -> WeightTotals:
    weights = layer_weights(spec, _layer(spec, index))
    schemes = _layer_schemes(spec, quantization, index)
    return _cached_totals(weights, schemes, dtype, cut)


def _layer(spec: ModelSpec, index: int) -> DecoderLayer:
    """Prediction layers follow the others and are like the last of them."""
    return spec.layers[min(index, spec.num_layers - 1)]


@lru_cache(maxsize=65536)
def _layer_schemes(spec: ModelSpec, quantization: Quantization | None, index: int) -> tuple[WeightScheme | None, ...]:
    prefix = f"{spec.prefix}.layers.{index}"
    weights = layer_weights(spec, _layer(spec, index))
    return tuple(_scheme(weight, f"{prefix}.{weight.module}", quantization) for weight in weights)


@lru_cache(maxsize=65536)
def _cached_totals(
    weights: tuple[Weight, ...], schemes: tuple[WeightScheme | None, ...], dtype: str, cut: Cut
) -> WeightTotals:
    total = WeightTotals()
    for weight, scheme in zip(weights, schemes, strict=True):
        total += _totals(weight, scheme, dtype, cut)
    return total


def _shard_totals(weight: Weight, name: str, quantization: Quantization | None, dtype: str, cut: Cut) -> WeightTotals:
    return _totals(weight, _scheme(weight, name, quantization), dtype, cut)


def _scheme(weight: Weight, name: str, quantization: Quantization | None) -> WeightScheme | None:
    if quantization is None or not weight.linear or weight.widened:
        return None
    return quantization.scheme_for(name)


def _totals(weight: Weight, scheme: WeightScheme | None, dtype: str, cut: Cut) -> WeightTotals:
    rows, columns = shard_shape(weight, cut)
    copies = cut.local_experts if weight.group is Group.ROUTED_EXPERT else weight.copies
    parameters = rows * columns * copies
    if scheme is not None:
        return WeightTotals(parameters, _stored_bytes(weight, scheme, rows, columns, cut) * copies)
    values = _plain_values(weight, rows, columns, cut) * copies
    return WeightTotals(parameters, values * DTYPE_BYTES[weight.dtype or dtype])


def _plain_values(weight: Weight, rows: int, columns: int, cut: Cut) -> int:
    """Values of an unquantised weight; biases of experts are padded with them."""
    if weight.group is Group.ROUTED_EXPERT and columns == 1:
        is_inner = weight.split is Split.ROWS
        return _round_up(rows, cut.padding.inner if is_inner else cut.padding.hidden)
    return rows * columns


def _stored_bytes(weight: Weight, scheme: WeightScheme, rows: int, columns: int, cut: Cut) -> int:
    if weight.group is not Group.ROUTED_EXPERT:
        return scheme.stored_bytes(rows, columns)
    inner, hidden = cut.padding.inner, cut.padding.hidden
    row_multiple, column_multiple = (inner, hidden) if weight.split is Split.ROWS else (hidden, inner)
    rows, columns = _round_up(rows, row_multiple), _round_up(columns, column_multiple)
    return _refined(weight, scheme, rows, columns).stored_bytes(rows, columns, cut.padding.packed)


def _refined(weight: Weight, scheme: WeightScheme, rows: int, columns: int) -> WeightScheme:
    """Blocks of an expert that a cut would go through are refined to ones it leaves whole.

    `refine_fp8_moe_block_shape` of vllm/model_executor/layers/fused_moe/oracle/fp8.py.
    """
    inner = rows if weight.split is Split.ROWS else columns
    if scheme.granularity != "block" or all(inner % size == 0 for size in scheme.block):
        return scheme
    size = gcd(*scheme.block, rows, columns)
    return replace(scheme, block=(size, size)) if size >= SMALLEST_REFINED_BLOCK else scheme


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def shard_shape(weight: Weight, cut: Cut) -> tuple[int, int]:
    """Rows and columns on one rank. Raises `ConfigError` where the engine could not cut the weight."""
    size = _group_size(weight.group, cut)
    if weight.split is Split.ROWS:
        return weight.rows // weight.heads * _divide(weight.heads, size, weight), weight.columns
    if weight.split is Split.COLUMNS:
        return weight.rows, _divide(weight.columns, size, weight)
    if weight.split is Split.KV_HEADS:
        return _kv_rows(weight, size), weight.columns
    return weight.rows, weight.columns


def _group_size(group: Group, cut: Cut) -> int:
    if group is Group.ROUTED_EXPERT:
        return cut.expert_tensor
    return cut.shared_expert if group is Group.SHARED_EXPERT else cut.tensor


def _kv_rows(weight: Weight, size: int) -> int:
    """Whole heads, at least one: with more ranks than heads a head is copied."""
    if weight.heads % size and size % weight.heads:
        raise ConfigError(f"{weight.heads} key-value heads can be neither cut over nor copied to {size} ranks")
    return weight.rows // weight.heads * max(1, weight.heads // size)


def _divide(size: int, parts: int, weight: Weight) -> int:
    if size % parts:
        raise ConfigError(f"{weight.module}: {size} is not divisible by {parts} ranks")
    return size // parts
