"""Which files of a published checkpoint an engine needs. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from orchestrator.errors import CheckpointUnavailable

INDEX = "model.safetensors.index.json"
WEIGHTS_SUFFIX = ".safetensors"
# Configuration, tokenizer and chat template, which lie at the top or, of templates, in one folder below it.
_SMALL_SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
_SMALL_FOLDERS = ("", "additional_chat_templates")
_CODE_SUFFIX = ".py"
# Mistral publishes its weights twice. vLLM 0.29.0 takes a folder that holds `consolidated*` for one in Mistral's own
# format, whatever else lies there (`DefaultModelLoader._prepare_weights`).
_CONSOLIDATED = "consolidated"


def small_files(names: Iterable[str], remote_code: bool) -> tuple[str, ...]:
    """Everything but weights: what describes the model, and the publisher's code where it is wanted."""
    return tuple(sorted(name for name in names if _is_small(name) or (remote_code and name.endswith(_CODE_SUFFIX))))


def weight_files(names: Iterable[str], index: str | None) -> tuple[str, ...]:
    """The safetensors files: those that the index (its text) names, else all at the top.

    Raises `CheckpointUnavailable` where there are none, or the index names one that is not there.
    """
    there = set(names)
    if index is not None:
        return _indexed(index, there)
    found = sorted(name for name in there if name.endswith(WEIGHTS_SUFFIX) and "/" not in name)
    chosen = [name for name in found if not name.startswith(_CONSOLIDATED)] or found
    if not chosen:
        others = sorted({name.rpartition(".")[2] for name in there if name.endswith((".bin", ".pt", ".pth", ".gguf"))})
        instead = f"; its weights are {' and '.join('*.' + suffix for suffix in others)}" if others else ""
        raise CheckpointUnavailable(f"no weights (*.safetensors) among its {len(there)} files{instead}")
    return tuple(chosen)


def _indexed(text: str, there: set[str]) -> tuple[str, ...]:
    try:
        named = {str(name) for name in json.loads(text)["weight_map"].values()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointUnavailable(f"{INDEX} names no weights (`weight_map`)") from None
    missing = sorted(named - there)
    if missing or not named:
        raise CheckpointUnavailable(f"{INDEX} names {missing[0] if missing else 'no file'}, which is not published")
    return tuple(sorted(named))


def _is_small(name: str) -> bool:
    folder, _, base = name.rpartition("/")
    return folder in _SMALL_FOLDERS and base.endswith(_SMALL_SUFFIXES) and not base.startswith(".")
