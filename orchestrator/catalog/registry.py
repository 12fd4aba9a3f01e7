"""The catalogue: models and GPUs by name, those that ship here and a user's own; local folders and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from orchestrator.catalog.entries import (
    CatalogEntry,
    Checkpoint,
    load_document,
    parse_catalog_file,
    read_catalog_file,
)
from orchestrator.catalog.gpus import GpuTable, gpus_of, shipped_gpus
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.suggest import suggest
from orchestrator.errors import ConfigError, UnknownModel

_DATA = resources.files("orchestrator.catalog").joinpath("data")


@dataclass(frozen=True)
class Catalog:
    """Entries by name; a user's file adds to those that ship here, and replaces those of equal name."""

    entries: tuple[CatalogEntry, ...]
    gpus: GpuTable

    def find(self, name: str) -> tuple[CatalogEntry, Checkpoint] | None:
        """By short name or alias the default checkpoint; by Hugging Face id exactly that one."""
        key = name.lower()
        for entry in self.entries:
            if key in (entry.name.lower(), *(alias.lower() for alias in entry.aliases)):
                return entry, entry.checkpoint(entry.default_checkpoint)
        for entry in self.entries:
            for checkpoint in entry.checkpoints:
                if key == checkpoint.hf_id.lower():
                    return entry, checkpoint
        return None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.entries)

    def spec(self, entry: CatalogEntry, checkpoint: Checkpoint) -> ModelSpec:
        config = dict(_config(checkpoint.config))
        if checkpoint.quantization_config is not None:
            config["quantization_config"] = checkpoint.quantization_config
        spec = ModelSpec.from_hf(config, name=entry.name, source=f"catalog: {checkpoint.config}")
        return replace(spec, checkpoint=checkpoint.hf_id)


@lru_cache(maxsize=1)
def _shipped_catalog() -> Catalog:
    document = json.loads(_DATA.joinpath("models.json").read_text("utf-8"))
    return Catalog(parse_catalog_file(document, "catalog/data/models.json").models, shipped_gpus())


def _config(name: str) -> Mapping[str, Any]:
    """A config of a user's file by its whole path, one that ships here by its name."""
    return load_document(Path(name)) if Path(name).is_absolute() else _shipped_config(name)


@lru_cache(maxsize=256)
def _shipped_config(name: str) -> Mapping[str, Any]:
    path = _DATA.joinpath("configs", name)
    if not path.is_file():
        raise ConfigError(f"catalog: config {name} is neither beside the catalogue file nor among those that ship here")
    config: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def load_catalog(user_file: Path | None = None) -> Catalog:
    """The catalogue that ships here, extended by a user's JSON or YAML file."""
    shipped = _shipped_catalog()
    if user_file is None:
        return shipped
    own = read_catalog_file(user_file)
    names = {entry.name for entry in own.models}
    kept = tuple(entry for entry in shipped.entries if entry.name not in names)
    models = tuple(_with_configs_beside(entry, user_file.resolve().parent) for entry in own.models)
    return Catalog((*models, *kept), shipped.gpus.with_own(gpus_of(own)))


def _with_configs_beside(entry: CatalogEntry, folder: Path) -> CatalogEntry:
    """A user's entry with the whole paths of the configs that lie beside the file."""
    checkpoints = tuple(
        checkpoint.model_copy(update={"config": str(folder / checkpoint.config)})
        if (folder / checkpoint.config).is_file()
        else checkpoint
        for checkpoint in entry.checkpoints
    )
    return entry.model_copy(update={"checkpoints": checkpoints})


def resolve_model(name: str, catalog: Catalog | None = None) -> ModelSpec:
    """The model of a short name, a Hugging Face id in the catalogue, or a local folder or file.

    Raises `UnknownModel` with near names, `ConfigError` for a config that cannot be used.
    """
    catalog = catalog or load_catalog()
    found = catalog.find(name)
    if found is not None:
        return catalog.spec(*found)
    path = Path(name).expanduser()
    if path.exists():
        return local_model(path)
    raise UnknownModel(
        f"model {name!r} is neither in the catalogue nor a local path{suggest(name, _all_names(catalog))}; "
        "a folder with a config.json, or a Hugging Face id where the network allows, will do as well"
    )


def local_model(path: Path) -> ModelSpec:
    """A model from a folder with a `config.json`, or from such a file itself."""
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        what = "a folder without a config.json" if path.is_dir() else "neither a folder nor a file"
        raise ConfigError(f"{path} is {what}")
    name = path.resolve().name if path.is_dir() else path.resolve().parent.name
    config = _with_scheme_beside(load_document(file), file.with_name("hf_quant_config.json"))
    spec = ModelSpec.from_hf(config, name=name, source=str(file))
    return replace(spec, checkpoint=str(file.parent))


def _with_scheme_beside(config: Mapping[str, Any], scheme: Path) -> Mapping[str, Any]:
    """ModelOpt's checkpoints describe their quantisation in a file of its own."""
    if "quantization_config" in config or not scheme.is_file():
        return config
    return {**config, "quantization_config": {"quant_method": "modelopt", **load_document(scheme)}}


def _all_names(catalog: Catalog) -> tuple[str, ...]:
    ids = (checkpoint.hf_id for entry in catalog.entries for checkpoint in entry.checkpoints)
    return (*catalog.names, *ids)
