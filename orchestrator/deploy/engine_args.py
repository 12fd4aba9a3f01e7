"""Engine arguments by vLLM's own names: spelled as on its command line, checked before anything starts."""

from __future__ import annotations

import difflib
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from orchestrator.errors import ConfigError

# Set by `deploy` itself: an argument that would contradict the service around the engine.
_OWNED = {
    "model": "name the model as the command's first argument",
    "served_model_name": "use --name",
    "distributed_executor_backend": "Ray Serve chooses it from the placement",
}
# human_readable_int of vllm.utils.argparse_utils: lower case decimal, upper case binary.
_SIZE_FACTORS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40,
}  # fmt: skip


@dataclass(frozen=True)
class EngineArgument:
    """One argument of the engine: `kind` is bool, int, size, float, list, json or str; `items` that of a list's."""

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    items: str = "str"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


@cache
def engine_arguments() -> Mapping[str, EngineArgument]:
    """vLLM's engine arguments by field name, as scripts/engine_arguments.py read them off the engine."""
    text = (files("orchestrator.catalog") / "data/engine_arguments.json").read_text()
    return {
        name: EngineArgument(name, row["kind"], tuple(row.get("choices", ())), row.get("items", "str"))
        for name, row in json.loads(text)["arguments"].items()
    }


def parse_command_line(words: Iterable[str]) -> dict[str, Any]:
    """Engine arguments from `--max-model-len 2048 --enable-expert-parallel`, as vLLM's command line reads them.

    Raises `ConfigError` for a name vLLM does not have (with the nearest ones), a missing or a wrong value.
    """
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ConfigError(f"{word!r} is not an option; engine arguments are written --name value")
        name, has_value, value = word[2:].partition("=")
        argument, positive = _named(name)
        if has_value and not positive:
            raise ConfigError(f"--{name} takes no value; write --{name}, or {argument.flag}={value}")
        if argument.kind == "bool" and not has_value:
            found[argument.name] = positive
            continue
        values = [value] if has_value else _take_values(rest, argument)
        found[argument.name] = _parse(argument, values)
    return found


def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments from a file: names and kinds checked, text values parsed as on the command line."""
    return {argument.name: _coerce(argument, value) for argument, value in _lookup_all(arguments)}


def _lookup_all(arguments: Mapping[str, Any]) -> Iterable[tuple[EngineArgument, Any]]:
    for name, value in arguments.items():
        yield _named(str(name))[0], value


def _named(name: str) -> tuple[EngineArgument, bool]:
    field = name.replace("-", "_")
    known = engine_arguments()
    if field in _OWNED:
        raise ConfigError(f"--{name} is set by deploy itself: {_OWNED[field]}")
    if field in known:
        return known[field], True
    if field.startswith("no_") and known.get(field[3:], EngineArgument("", "")).kind == "bool":
        return known[field[3:]], False
    near = difflib.get_close_matches(field, known, n=3)
    hint = f"; did you mean {' or '.join(known[n].flag for n in near)}?" if near else ""
    raise ConfigError(f"vLLM has no engine argument --{name}{hint}")


def _take_values(rest: list[str], argument: EngineArgument) -> list[str]:
    if argument.kind != "list":
        if not rest or rest[0].startswith("--"):
            raise ConfigError(f"{argument.flag} needs a value")
        return [rest.pop(0)]
    taken: list[str] = []
    while rest and not rest[0].startswith("--"):
        taken.append(rest.pop(0))
    if not taken:
        raise ConfigError(f"{argument.flag} needs at least one value")
    return taken


def _coerce(argument: EngineArgument, value: Any) -> Any:
    if isinstance(value, str):
        return _parse(argument, [value])
    wanted: dict[str, tuple[type, ...]] = {
        "bool": (bool,), "int": (int,), "size": (int,), "float": (int, float),
        "list": (list,), "json": (dict, list), "str": (str, dict, int, float, bool),
    }  # fmt: skip
    wrong_bool = isinstance(value, bool) and argument.kind in ("int", "size", "float")
    if wrong_bool or not isinstance(value, wanted[argument.kind]):
        raise ConfigError(f"{argument.flag}: {reprlib.repr(value)} is not {_KINDS[argument.kind]}")
    if argument.kind == "list" and isinstance(value, list):
        return _parse(argument, [str(item) for item in value])
    if argument.choices or argument.kind == "float":
        return _parse(argument, [str(value)])
    return value


_KINDS = {
    "bool": "true or false", "int": "a whole number", "size": "a whole number such as 2048, 16k or auto",
    "float": "a number", "list": "a list", "json": "a JSON object", "str": "text, or a whole JSON object",
}  # fmt: skip


def _parse(argument: EngineArgument, values: list[str]) -> Any:
    if argument.kind == "list":
        return [_parse_one(argument, argument.items, text) for text in values]
    return _parse_one(argument, argument.kind, values[0])


def _parse_one(argument: EngineArgument, kind: str, text: str) -> Any:
    if argument.choices and text not in argument.choices:
        raise ConfigError(f"{argument.flag}: {text[:100]!r} is not one of {', '.join(argument.choices)}")
    try:
        return _PARSERS[kind](text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{argument.flag}: {text[:100]!r} is not {_KINDS[kind]}") from None


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _parse_size(text: str) -> int | str:
    if text == "auto":
        return text
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([kKmMgGtT]?)", text)
    size = float(match.group(1)) * _SIZE_FACTORS[match.group(2)] if match else 0.5
    if not size.is_integer():
        raise ValueError
    return int(size)


def _parse_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def _parse_json(text: str) -> Any:
    if not isinstance(document := json.loads(text), (dict, list)):
        raise ValueError
    return document


def _parse_str(text: str) -> Any:
    # Structured configurations (--compilation-config and its like) are JSON on vLLM's command line too.
    return json.loads(text) if text.startswith("{") else text


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "bool": _parse_bool, "int": int, "size": _parse_size, "float": _parse_float, "json": _parse_json, "str": _parse_str,
}  # fmt: skip
