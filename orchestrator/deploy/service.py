"""The service: what a person asks for. Read from the command line or from a file kept in git."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from orchestrator.catalog.engine_arguments import check, read_words, unknown_argument
from orchestrator.errors import ConfigError
from orchestrator.validation import first_problem, read_yaml

MAX_FILE_BYTES = 1_000_000
MAX_PARALLEL_SIZE = 1024
# Set by `deploy` itself: an argument that would contradict the service around the engine.
_OWNED = {
    "model": "name the model as the command's first argument",
    "served_model_name": "use --name",
    "distributed_executor_backend": "Ray Serve chooses it from the placement",
}
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


class Access(BaseModel):
    """Who may call the model: with `auth` (the default) only holders of an API key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    auth: bool = True


class Service(BaseModel):
    """One model served under one name.

    `model` is a catalogue name, a folder with a checkpoint, or a Hugging Face id; `engine` holds vLLM's
    arguments by vLLM's names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    engine: dict[str, JsonValue] = {}
    env: dict[str, str] = {}
    access: Access = Access()

    @field_validator("name")
    @classmethod
    def _name_is_usable(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("use lower-case letters, digits, '.', '_' and '-' (at most 63)")
        return name

    @field_validator("engine")
    @classmethod
    def _engine_arguments_exist(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            checked = check(_not_owned(arguments))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            if not 1 <= checked.get(name, 1) <= MAX_PARALLEL_SIZE:
                raise ValueError(
                    f"--{name.replace('_', '-')} is {checked[name]}; it goes from 1 to {MAX_PARALLEL_SIZE}"
                )
        return checked


def read_engine_arguments(words: Iterable[str]) -> dict[str, Any]:
    """Engine arguments from `--max-model-len 2048 --enable-expert-parallel`.

    Raises `ConfigError` for a name vLLM does not have (with the nearest ones), a missing or a wrong value.
    """
    read = read_words(words)
    if read.words:
        raise ConfigError(f"{read.words[0]!r} is not an option; engine arguments are written --name value")
    if read.others:
        raise ConfigError(unknown_argument(next(iter(read.others))))
    return dict(_not_owned(read.arguments))


def _not_owned(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in arguments:
        if (mend := _OWNED.get(str(name).replace("-", "_"))) is not None:
            raise ConfigError(f"--{str(name).replace('_', '-')} is set by deploy itself: {mend}")
    return arguments


def default_name(model: str) -> str:
    """The name a model is served under when none is given: the last part of its path or id, in lower case."""
    return re.sub(r"[^a-z0-9._-]+", "-", Path(model.rstrip("/")).name.lower())[:63].strip("-._") or "model"


def make_service(**fields: Any) -> Service:
    """A service from the command line's fields; raises `ConfigError` naming the first wrong one."""
    fields.setdefault("name", default_name(str(fields.get("model", ""))))
    try:
        return Service.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(first_problem(error)) from None


def read_service(path: Path) -> Service:
    """The service in a YAML file; raises `ConfigError` with the file and the field."""
    fields = read_yaml(path, MAX_FILE_BYTES, "service file", "`model` and, if wanted, `name`, `engine` …")
    try:
        return make_service(**{str(key): value for key, value in fields.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
