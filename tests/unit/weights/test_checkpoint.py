"""A folder is a whole checkpoint, or the file that is missing or damaged is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.weights.checkpoint import check_checkpoint


def safetensors(header: Any, data_bytes: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


def tensor(begin: int, end: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}


SHARD = safetensors({"__metadata__": {"format": "pt"}, "a": tensor(0, 60), "b": tensor(60, 100)}, 100)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards with an index."""
    (tmp_path / "config.json").write_text("{}")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for number in (1, 2):
        (tmp_path / f"model-{number}.safetensors").write_bytes(SHARD)
    return tmp_path


def test_a_whole_checkpoint_tells_its_bytes(folder: Path) -> None:
    assert check_checkpoint(folder) == 2 * len(SHARD)


def test_without_an_index_every_weight_file_counts(folder: Path) -> None:
    (folder / "model.safetensors.index.json").unlink()
    assert check_checkpoint(folder) == 2 * len(SHARD)


@pytest.mark.parametrize("length", [0, 7, 8, 50, len(SHARD) - 1])
def test_a_truncated_shard_is_damaged(folder: Path, length: int) -> None:
    (folder / "model-2.safetensors").write_bytes(SHARD[:length])
    with pytest.raises(ConfigError, match=r"model-2.safetensors: damaged.*fetch the checkpoint again"):
        check_checkpoint(folder)


def test_a_shard_with_something_after_it_is_damaged(folder: Path) -> None:
    (folder / "model-1.safetensors").write_bytes(SHARD + b"x")
    with pytest.raises(ConfigError, match=r"model-1.safetensors: damaged, \d+ bytes where its header says \d+"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 99_999_999) + b"{}",
        safetensors(b"[" * 100_000, 0),
        safetensors(b"\xff\xff", 0),
        safetensors([1], 0),
        safetensors({"a": 5}, 0),
        safetensors({"a": {"dtype": "U8"}}, 0),
        safetensors({"a": {"data_offsets": ["x", "y"]}}, 0),
        safetensors({}, 0),
        b"<html>not found</html>",
    ],
)
def test_a_header_that_is_none_is_damage(folder: Path, content: bytes) -> None:
    (folder / "model-1.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model-1.safetensors: damaged, its header cannot be read"):
        check_checkpoint(folder)


@given(st.binary(max_size=200))
def test_any_bytes_for_a_header_are_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    with pytest.raises(ConfigError, match="damaged"):
        check_checkpoint(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model-2.safetensors: missing"):
        check_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json: No such file"),
        ("config.json", "{", "config.json: not valid JSON"),
        ("config.json", "[" * 100_000, "config.json: not valid JSON"),
        ("config.json", "[]", "config.json: not a JSON object"),
        ("model.safetensors.index.json", "{}", "index.json: names no weights"),
        ("model.safetensors.index.json", '{"weight_map": []}', "index.json: names no weights"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "other.safetensors"}}', "other.safetensors: missing"),
    ],
)
def test_a_wrong_description_is_named(folder: Path, name: str, content: str | None, message: str) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=message):
        check_checkpoint(folder)


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no weights .* is the download complete"):
        check_checkpoint(tmp_path)
