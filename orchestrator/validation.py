"""What every file that comes in has in common: a size limit, UTF-8, and one line for what is wrong."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from orchestrator.errors import ConfigError
from orchestrator.units import parse_bytes


def _bytes(value: object) -> object:
    if isinstance(value, str):
        try:
            return parse_bytes(value)
        except ConfigError as error:
            raise ValueError(str(error)) from None
    return value


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 64

# A size, in bytes or as text: 85094236160, `79.2GiB`.
Bytes = Annotated[int, BeforeValidator(_bytes), Field(strict=True, gt=0)]


def read_text(path: Path, max_bytes: int, kind: str) -> str:
    """The file's text. Raises `ConfigError` for a folder, a missing, an oversized or a binary file."""
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; name a {kind} in it")
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise ConfigError(f"{path}: {size_bytes} bytes is too much for a {kind}; the limit is {max_bytes}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8") from None


def read_yaml(path: Path, max_bytes: int, kind: str, holds: str) -> dict[str, Any]:
    """The mapping in a YAML file; `holds` says what is at its top. Raises `ConfigError` for anything else."""
    text = read_text(path, max_bytes, kind)
    try:
        _check_depth(text)
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader, the C one where it exists
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a {kind} is a mapping with {holds}")
    return document


def _check_depth(text: str) -> None:
    """Raises `ValueError` for what nests too deep: the C loader would end the process by its stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} levels deep")


def first_problem(error: ValidationError) -> str:
    """One line from pydantic's report: the field's path, what is wrong, and what was given."""
    problem = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "the whole file"
    if problem["type"] == "extra_forbidden":
        return f"{field}: no such key here"
    message = problem["msg"].removeprefix("Value error, ")
    message = f"{message[0].lower()}{message[1:]}"
    if problem["type"] == "too_short":
        return f"{field}: must not be empty"
    if problem["type"] in ("missing", "value_error"):
        return f"{field}: {message}"
    return f"{field}: {message}, not {_short(problem['input'])}"


def _short(value: object) -> str:
    """At most 60 characters, without ever writing out more: YAML's aliases can make a value of any length."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
