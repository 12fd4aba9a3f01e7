"""Catalogue entries as documents: what a file of models and GPUs may say, checked on the way in."""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import ConfigError
from orchestrator.validation import Bytes, first_problem

# YAML reads an unquoted 2026-11-24 as a date.
Date = Annotated[
    str,
    BeforeValidator(lambda value: value.isoformat() if type(value) is datetime.date else value),
    Field(pattern=r"^\d{4}-\d{2}-\d{2}$"),
]
# YAML reads `yes` as a truth value: that is no number.
Count = Annotated[int, Field(strict=True, gt=0, le=10**6)]
Rate = Annotated[float, Field(strict=True, gt=0, le=10**6, allow_inf_nan=False)]
# As it can be written in `--gpus 8xNAME`.
GpuName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=100)]
Text = Annotated[str, Field(min_length=1)]


class Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Document):
    """Where a fact came from, and when it was read."""

    where: Text
    date: Date


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
    size_bytes: Bytes | None = None
    note: str = ""
    sources: tuple[Source, ...] = Field(min_length=1)


class Preset(Document):
    """Engine settings known good on some hardware, used where the user says nothing else."""

    gpu: str
    num_gpus: Count
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
    needs_remote_code: Annotated[bool, Field(strict=True)] = False
    presets: tuple[Preset, ...] = ()

    def checkpoint(self, hf_id: str) -> Checkpoint:
        for checkpoint in self.checkpoints:
            if checkpoint.hf_id == hf_id:
                return checkpoint
        raise ConfigError(f"{self.name} has no checkpoint {hf_id}; it has {self._ids()}")

    def _ids(self) -> str:
        return ", ".join(checkpoint.hf_id for checkpoint in self.checkpoints)


class GpuEntry(Document):
    """One kind of GPU, as `GpuSpec` describes it. Bandwidths in decimal gigabytes a second, dense TFLOPS."""

    name: GpuName
    # The driver's name for it, by which a running cluster's GPUs are known; "" for the name itself.
    product: str = ""
    aliases: tuple[Text, ...] = ()
    vendor: Literal["nvidia", "amd"]
    # The label Ray gives its nodes, where it has one.
    ray_accelerator_type: Text | None = None
    # What torch reports as the total; "driver" and "assumed" say what stands in for it, and `note` how.
    memory_bytes: Bytes
    memory_basis: Literal["torch", "driver", "assumed"] = "torch"
    driver_memory_bytes: Bytes | None = None
    hbm_bandwidth_gb_per_s: Rate
    tflops: dict[Literal["bf16", "fp8", "fp4"], Rate] = {}
    # Both ways together; 0 without NVLink.
    nvlink_gb_per_s: Annotated[float, Field(strict=True, ge=0, le=10**6)] = 0
    # One way.
    pcie_gb_per_s: Rate
    # "9.0", or AMD's target such as "gfx942".
    compute_capability: Text
    note: str = ""
    sources: Annotated[tuple[Text, ...], Field(min_length=1)]
    date: Date

    @model_validator(mode="after")
    def _says_what_is_needed(self) -> GpuEntry:
        if self.vendor == "nvidia" and not re.fullmatch(r"\d+\.\d+", self.compute_capability):
            raise ValueError(f"compute_capability is {self.compute_capability!r}; NVIDIA's is written as in '9.0'")
        if self.memory_basis != "torch" and not self.note:
            raise ValueError(f"memory_basis is {self.memory_basis}; note must say how memory_bytes was come by")
        return self


class CatalogFile(Document):
    """Models and GPUs. A file may hold either, or both."""

    models: tuple[CatalogEntry, ...] = ()
    gpus: tuple[GpuEntry, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> CatalogFile:
        for section, entries in (("models", self.models), ("gpus", self.gpus)):
            twice = [name for name, times in Counter(entry.name.lower() for entry in entries).items() if times > 1]
            if twice:
                raise ValueError(f"{section} has {twice[0]} twice")
        return self


def read_catalog_file(path: Path) -> CatalogFile:
    """The models and GPUs of a JSON or YAML file. Raises `ConfigError` naming the field at fault."""
    return parse_catalog_file(load_document(path), str(path))


def parse_catalog_file(document: Mapping[str, Any], source: str) -> CatalogFile:
    try:
        return CatalogFile.model_validate(document)
    except ValidationError as error:
        raise ConfigError(f"{source}: {first_problem(error)}") from None


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
