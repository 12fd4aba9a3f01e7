"""Whether a folder holds a whole checkpoint: configuration, every weight file, each as long as its own header says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
MAX_JSON_BYTES = 100_000_000


def check_checkpoint(folder: Path) -> int:
    """The bytes of weights in `folder`; raises `ConfigError` naming the file that is missing or damaged."""
    _read_json(folder / "config.json")
    return sum(_check_weights(path) for path in _weight_files(folder))


def _weight_files(folder: Path) -> list[Path]:
    index_path = folder / "model.safetensors.index.json"
    if index_path.exists():
        weight_map = _read_json(index_path).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConfigError(f"{index_path}: names no weights (`weight_map`); fetch the checkpoint again")
        return [folder / name for name in sorted({str(name) for name in weight_map.values()})]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise ConfigError(f"{folder}: no weights (*.safetensors) beside config.json; is the download complete?")
    return found


def _check_weights(path: Path) -> int:
    """The file's bytes, if it ends where its header says that the last tensor ends."""
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes)) if header_bytes <= MAX_HEADER_BYTES else {}
        # Of a header that is no such thing, anything may be missing or of another type.
        expected_bytes = (
            8 + header_bytes + max(row["data_offsets"][1] for key, row in header.items() if key[:2] != "__")
        )
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; the checkpoint's index names it") from None
    except (OSError, ValueError, RecursionError, struct.error, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{path}: damaged, its header cannot be read; fetch the checkpoint again") from None
    if size_bytes != expected_bytes:
        raise ConfigError(
            f"{path}: damaged, {size_bytes} bytes where its header says {expected_bytes}; fetch the checkpoint again"
        )
    return size_bytes


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_JSON_BYTES} bytes, so not a configuration")
        document = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not valid JSON; fetch the checkpoint again") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return document
