"""Catalogue entries as documents: what a file of models may say, checked on the way in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.errors import ConfigError


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Document):
    """Where a fact came from, and when it was read."""

    where: str
    date: str


class Checkpoint(Document):
    """One published set of weights of a model."""

    hf_id: str
    # The commit of the hub that is pulled and deployed; without one `pull` takes what `main` is then, and records it.
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    # Words for people: "BF16", "FP8 in blocks of 128x128".
    quantization: str
    # File below data/configs, or a path beside the user's own file.
    config: str
    # What the checkpoint's config says beyond `config`, where that file is the unquantised model's.
    quantization_config: dict[str, Any] | None = None
    # Bytes of the weight files, where a publisher or a log states them.
    size_bytes: int | None = Field(default=None, gt=0)
    note: str = ""
    sources: tuple[Source, ...] = Field(min_length=1)


class Preset(Document):
    """Engine settings known good on some hardware, used where the user says nothing else."""

    gpu: str
    num_gpus: int = Field(gt=0)
    checkpoint: str | None = None
    # vLLM's argument names, underscored.
    engine_args: dict[str, int | float | str | bool]
    env: dict[str, str] = {}
    sources: tuple[Source, ...] = Field(min_length=1)


class CatalogEntry(Document):
    """A model under its short name."""

    name: str
    # The publisher's id, which clients may use as the model's name.
    hf_id: str
    aliases: tuple[str, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = Field(min_length=1)
    # hf_id of the checkpoint taken by default.
    default_checkpoint: str
    # Custom code the tokenizer or config needs; loaded by name and revision only.
    needs_remote_code: bool = False
    presets: tuple[Preset, ...] = ()

    def checkpoint(self, hf_id: str) -> Checkpoint:
        for checkpoint in self.checkpoints:
            if checkpoint.hf_id == hf_id:
                return checkpoint
        raise ConfigError(f"{self.name} has no checkpoint {hf_id}; it has {self._ids()}")

    def _ids(self) -> str:
        return ", ".join(checkpoint.hf_id for checkpoint in self.checkpoints)


class CatalogFile(Document):
    models: tuple[CatalogEntry, ...]


def read_entries(path: Path) -> tuple[CatalogEntry, ...]:
    """The models of a JSON or YAML file. Raises `ConfigError` naming the field at fault."""
    return parse_entries(load_document(path), str(path))


def parse_entries(document: Mapping[str, Any], source: str) -> tuple[CatalogEntry, ...]:
    try:
        return CatalogFile.model_validate(document).models
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{source}: {field}: {first['msg']}") from None


# A model's config is a few kilobytes; anything this large is some other file.
LARGEST_DOCUMENT_BYTES = 8 * 1024 * 1024


def load_document(path: Path) -> Mapping[str, Any]:
    """A JSON or YAML object. Raises `ConfigError` for what is too large, unreadable or no object."""
    try:
        size = path.stat().st_size
        if size > LARGEST_DOCUMENT_BYTES:
            raise ConfigError(f"{path} has {size} bytes and is no config: the limit is {LARGEST_DOCUMENT_BYTES}")
        text = path.read_text("utf-8")
        document = yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON or YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, Mapping):
        raise ConfigError(f"{path} holds {type(document).__name__}; it must be an object")
    return document
