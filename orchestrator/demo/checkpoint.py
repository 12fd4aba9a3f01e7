"""Files of a checkpoint in Hugging Face's layout: safetensors and JSON, written the same way every time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.demo.options import Dtype

WEIGHTS = "model.safetensors"
ITEM_BYTES: Mapping[str, int] = {"bfloat16": 2, "float32": 4}
_TAGS: Mapping[str, str] = {"bfloat16": "BF16", "float32": "F32"}
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in the file. `data` is a C-contiguous little-endian numpy array of its bits."""

    dtype: Dtype
    data: Any

    @property
    def size_bytes(self) -> int:
        return int(self.data.nbytes)


def store(values: Any, dtype: Dtype) -> StoredTensor:
    """float32 `values` of any shape, encoded as `dtype`."""
    import numpy as np

    bits = bfloat16_bits(values) if dtype == "bfloat16" else np.ascontiguousarray(values, dtype="<f4")
    return StoredTensor(dtype, bits)


def bfloat16_bits(values: Any) -> Any:
    """float32 → the bits of the nearest bfloat16 (ties to even, as in torch), as uint16 of the same shape.

    numpy has no bfloat16: it is the upper half of a float32. Values must be finite.
    """
    import numpy as np

    wide = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    half = np.uint32(0x7FFF) + ((wide >> np.uint32(16)) & np.uint32(1))
    return ((wide + half) >> np.uint32(16)).astype("<u2")


def write_safetensors(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write `tensors` by name in the safetensors format: header length (u64), JSON header, then the bytes.

    Written here and not with the library of that name, whose numpy interface knows no bfloat16.
    Format: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + tensor.size_bytes
        shape = list(tensor.data.shape)
        header[name] = {"dtype": _TAGS[tensor.dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _name, tensor in sorted(tensors.items()):
            file.write(tensor.data.data)


def write_json(path: Path, document: Mapping[str, object]) -> None:
    """Write `document` as indented UTF-8 JSON, in its own order."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
