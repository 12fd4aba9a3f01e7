"""How a checkpoint stores its weights: the scheme of each module, its scales, and what it leaves alone."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

WeightFormat = Literal["fp8", "mxfp8", "int8", "int4", "mxfp4", "nvfp4"]
Granularity = Literal["tensor", "channel", "block", "group"]

_WEIGHT_BITS: dict[WeightFormat, int] = {"fp8": 8, "mxfp8": 8, "int8": 8, "int4": 4, "mxfp4": 4, "nvfp4": 4}
# MX and NV formats keep one byte a scale; all others a float.
_BYTE_SCALED: frozenset[WeightFormat] = frozenset({"mxfp8", "mxfp4", "nvfp4"})


@dataclass(frozen=True)
class WeightScheme:
    """The storage of one weight matrix of `rows` outputs and `columns` inputs."""

    format: WeightFormat
    granularity: Granularity
    # Rows and columns that share a scale; only for "block" (128, 128) and "group" (1, 32).
    block: tuple[int, int] = (1, 1)
    scale_bytes: int = 4
    zero_points: bool = False
    # GPTQ stores the group of every input column as an int32.
    column_index: bool = False

    @property
    def weight_bits(self) -> int:
        return _WEIGHT_BITS[self.format]

    def stored_bytes(self, rows: int, columns: int, packed_multiple: int = 1) -> int:
        """Bytes of the packed weight and all that belongs to it.

        `packed_multiple` rounds up the columns of the packed weight alone, as some kernels' layouts do.
        """
        scales = self._num_scales(rows, columns)
        packed_columns = -(-columns // packed_multiple) * packed_multiple
        packed = -(-rows * packed_columns * self.weight_bits // 8)
        zeros = -(-scales * self.weight_bits // 8) if self.zero_points else 0
        index = 4 * columns if self.column_index else 0
        # NVFP4 has a second, per-tensor float scale for weights and one for inputs.
        tensor_scales = 8 if self.format == "nvfp4" else 0
        return packed + scales * self.scale_bytes + zeros + index + tensor_scales

    def _num_scales(self, rows: int, columns: int) -> int:
        if self.granularity == "tensor":
            return 1
        if self.granularity == "channel":
            return rows
        return -(-rows // self.block[0]) * -(-columns // self.block[1])


@dataclass(frozen=True)
class QuantizationRule:
    """Modules named by `targets` (or every linear layer, where empty) are stored by `scheme`."""

    scheme: WeightScheme
    targets: tuple[str, ...] = ()

    def covers(self, module: str) -> bool:
        return not self.targets or any(matches(target, module) for target in self.targets)


@dataclass(frozen=True)
class Quantization:
    """The rules of a checkpoint. `method` is vLLM's name for it (`--quantization`)."""

    method: str
    rules: tuple[QuantizationRule, ...]
    # Name patterns of modules that keep the model's own type.
    ignored: tuple[str, ...] = ()
    # Some methods quantise nothing but routed experts, whatever else they name.
    experts_only: bool = False
    # False where the engine quantises a wider checkpoint while loading it.
    in_checkpoint: bool = True
    # What the cache is stored as where the engine's setting is `auto`.
    kv_cache_dtype: str | None = field(default=None)

    def scheme_for(self, module: str) -> WeightScheme | None:
        """The scheme of a linear module by its full name in the checkpoint; None where it is left alone."""
        if self.experts_only and ".experts." not in module:
            return None
        return _scheme_for(self.rules, self.ignored, module)

    @property
    def weight_format(self) -> WeightFormat:
        return self.rules[0].scheme.format


@lru_cache(maxsize=65536)
def _scheme_for(rules: tuple[QuantizationRule, ...], ignored: tuple[str, ...], module: str) -> WeightScheme | None:
    if any(matches(pattern, module) for pattern in ignored):
        return None
    return next((rule.scheme for rule in rules if rule.covers(module)), None)


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern names the module or a parent of it.

    `re:` patterns are matched from the start of the name, as compressed-tensors does; `*` stands for
    anything; a bare `gate` or `mlp.gate` matches whole components, so that it never means `gate_proj`.
    """
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    if "*" in pattern:
        return fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, pattern + ".*")
    return f".{pattern}." in f".{module}."
