"""The file format is written exactly: bfloat16 rounds as torch does, safetensors parses as specified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.demo.checkpoint import bfloat16_bits, store, write_safetensors


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (0.0, 0x0000),
        (1.00390625, 0x3F80),  # halfway between 0x3F80 and 0x3F81: to the even one
        (1.01171875, 0x3F82),  # halfway between 0x3F81 and 0x3F82: to the even one
        (1.00390637, 0x3F81),  # just above halfway
    ],
)
def test_bfloat16_rounds_to_nearest_even(value: float, bits: int) -> None:
    assert bfloat16_bits(np.array([value], dtype=np.float32)).tolist() == [bits]


def test_a_safetensors_file_holds_each_tensor_where_its_header_says(tmp_path: Path) -> None:
    matrix: Any = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"b": store(matrix.T, "float32"), "a": store(matrix, "bfloat16")})
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_end])
    assert header_end % 8 == 0
    assert header["a"] == {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}
    assert header["b"] == {"dtype": "F32", "shape": [3, 2], "data_offsets": [12, 36]}
    assert np.frombuffer(content[header_end + 12 :], "<f4").tolist() == [0, 3, 1, 4, 2, 5]


def test_the_order_in_which_tensors_are_given_does_not_change_the_file(tmp_path: Path) -> None:
    one, two = store(np.ones(2), "float32"), store(np.zeros(2), "bfloat16")
    write_safetensors(tmp_path / "x", {"one": one, "two": two})
    write_safetensors(tmp_path / "y", {"two": two, "one": one})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
