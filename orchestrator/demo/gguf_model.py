"""The dense model as a GGUF file holds it: metadata and dequantised tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Metadata of these two is all that the builders use.
_WANTED = ("llama.", "tokenizer.")


@dataclass(frozen=True)
class GgufModel:
    """An open GGUF file. `metadata` maps GGUF's keys to plain Python values."""

    metadata: Mapping[str, Any]
    tensors: tuple[Any, ...]

    def weights(self) -> Iterator[tuple[str, Any]]:
        """GGUF's tensor names, each with its values as float32, shape (outputs, inputs) as in PyTorch."""
        from gguf import quants

        for tensor in self.tensors:
            yield tensor.name, quants.dequantize(tensor.data, tensor.tensor_type)


def read_gguf(path: Path) -> GgufModel:
    """Open the GGUF file at `path`; its tensors stay on the disk until they are asked for."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    wanted = {key: field for key, field in reader.fields.items() if key.startswith(_WANTED)}
    return GgufModel({key: field.contents() for key, field in wanted.items()}, tuple(reader.tensors))
