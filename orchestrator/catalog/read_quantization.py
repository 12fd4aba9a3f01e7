"""`quantization_config` of a Hugging Face config, translated method by method."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.catalog.fields import Fields
from orchestrator.catalog.quantization import Quantization, QuantizationRule, WeightFormat, WeightScheme
from orchestrator.errors import ConfigError

Reader = Callable[[Fields], Quantization]


def read_quantization(whole: Fields, text: Fields) -> Quantization | None:
    """None where the checkpoint is not quantised; `ConfigError` for a method that is not known here."""
    config = whole.part("quantization_config") or text.part("quantization_config")
    config = config or whole.part("compression_config") or text.part("compression_config")
    if config is None:
        return None
    method = config.text("quant_method", "quant_algo")
    reader = READERS.get(method.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise ConfigError(f"{config.source}: quant_method {method!r} is not known here; known are {known}")
    return reader(config)


def _fp8(config: Fields) -> Quantization:
    block = config.pair("weight_block_size")
    scheme = WeightScheme("fp8", "tensor")
    if block:
        scheme = WeightScheme("fp8", "block", block)
    return Quantization("fp8", (QuantizationRule(scheme),), _ignored(config))


def _mxfp4(config: Fields) -> Quantization:
    rule = QuantizationRule(WeightScheme("mxfp4", "group", (1, 32), scale_bytes=1))
    return Quantization("mxfp4", (rule,), _ignored(config), experts_only=True)


def _awq(config: Fields) -> Quantization:
    scheme = _int_groups(config, zero_points=config.flag("zero_point", True))
    return Quantization("awq", (QuantizationRule(scheme),), _ignored(config))


def _gptq(config: Fields) -> Quantization:
    # vLLM and the files keep packed zero points even where the scheme is symmetric.
    scheme = _int_groups(config, zero_points=True, column_index=True)
    return Quantization("gptq", (QuantizationRule(scheme),), _ignored(config))


def _int_groups(config: Fields, zero_points: bool, column_index: bool = False) -> WeightScheme:
    bits = config.size("bits", "w_bit", default=4)
    if bits not in (4, 8):
        raise ConfigError(f"{config.source}: bits is {bits}; only 4 and 8 are known here")
    group = config.size("group_size", "q_group_size", default=128, minimum=-1)
    format_: WeightFormat = "int4" if bits == 4 else "int8"
    if group < 1:
        return WeightScheme(format_, "channel", (1, 1), 2, zero_points, column_index)
    return WeightScheme(format_, "group", (1, group), 2, zero_points, column_index)


def _compressed_tensors(config: Fields) -> Quantization:
    groups = config.part("config_groups")
    names = list(groups.values) if groups else []
    if groups is None or not names:
        raise ConfigError(f"{config.source}: config_groups is missing; it must name at least one group")
    rules = tuple(_group_rule(groups, name) for name in names)
    scheme = config.part("kv_cache_scheme")
    kv_dtype = "fp8" if scheme is not None and scheme.text("type", default="float") == "float" else None
    ignored = config.names("ignore")
    return Quantization("compressed-tensors", rules, ignored, kv_cache_dtype=kv_dtype)


def _group_rule(groups: Fields, name: str) -> QuantizationRule:
    group = groups.part(name)
    weights = group.part("weights") if group else None
    if group is None or weights is None:
        raise ConfigError(f"{groups.source}: {name} has no weights; it must state their scheme")
    targets = group.names("targets")
    everything = not targets or "Linear" in targets
    return QuantizationRule(_compressed_scheme(weights), () if everything else targets)


def _compressed_scheme(weights: Fields) -> WeightScheme:
    bits, kind = weights.size("num_bits"), weights.text("type", default="int")
    strategy = weights.text("strategy", default="group")
    group = weights.size("group_size", default=128)
    zero_points = not weights.flag("symmetric", True)
    if kind == "float" and bits == 4:
        if strategy == "tensor_group" or group == 16:
            return WeightScheme("nvfp4", "group", (1, group), 1)
        return WeightScheme("mxfp4", "group", (1, group), 1)
    if kind == "float" and bits == 8:
        return _float8(weights, strategy, group)
    if kind == "int" and bits in (4, 8):
        return _packed_int(bits, strategy, group, zero_points)
    raise ConfigError(f"{weights.source}: {bits} bits of type {kind!r} are not known here")


def _packed_int(bits: int, strategy: str, group: int, zero_points: bool) -> WeightScheme:
    format_: WeightFormat = "int4" if bits == 4 else "int8"
    if strategy == "group":
        return WeightScheme(format_, "group", (1, group), 2, zero_points)
    return WeightScheme(format_, "channel" if strategy == "channel" else "tensor", zero_points=zero_points)


def _float8(weights: Fields, strategy: str, group: int) -> WeightScheme:
    if strategy == "block":
        return WeightScheme("fp8", "block", weights.pair("block_structure") or (128, 128))
    if strategy == "group":
        return WeightScheme("mxfp8", "group", (1, group), 1)
    return WeightScheme("fp8", "channel" if strategy == "channel" else "tensor")


def _modelopt(config: Fields) -> Quantization:
    nested = config.part("quantization") or config
    algorithm = nested.text("quant_algo").upper()
    if algorithm == "FP8":
        scheme = WeightScheme("fp8", "tensor")
    elif algorithm in ("NVFP4", "W4A16_NVFP4"):
        scheme = WeightScheme("nvfp4", "group", (1, nested.size("group_size", default=16)), 1)
    elif algorithm == "MXFP8":
        scheme = WeightScheme("mxfp8", "group", (1, 32), 1)
    else:
        raise ConfigError(f"{config.source}: quant_algo {algorithm!r} is not known here")
    ignored = (*nested.names("exclude_modules"), *nested.names("ignore"))
    method = "modelopt_fp4" if scheme.format == "nvfp4" else "modelopt"
    kv_dtype = "fp8" if nested.text("kv_cache_quant_algo", default="").upper() == "FP8" else None
    return Quantization(method, (QuantizationRule(scheme),), ignored, kv_cache_dtype=kv_dtype)


def _ignored(config: Fields) -> tuple[str, ...]:
    return config.names("ignored_layers") or config.names("modules_to_not_convert")


READERS: dict[str, Reader] = {
    "fp8": _fp8,
    "mxfp4": _mxfp4,
    "awq": _awq,
    "gptq": _gptq,
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
}
