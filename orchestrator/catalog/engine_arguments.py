"""vLLM's engine arguments by its own names: command lines and files, read as vLLM reads them and checked.

Dashes and underscores are one, `--name value` and `--name=value` are one, `--no-name` turns a switch off, `-tp` and
its like are short, `--config.key value` sets one key of a JSON object, and 32k is 32,000 while 32K is 32,768
(vllm/utils/argparse_utils.py).
"""

from __future__ import annotations

import difflib
import json
import math
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

from orchestrator.errors import ConfigError

# What `--max-model-len auto` stands for, as in vLLM.
AUTO_LENGTH = -1
# human_readable_int of vllm.utils.argparse_utils: lower case decimal, upper case binary.
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# The engine refuses less, but only after it has started.
_LEAST = {
    "tensor_parallel_size": 1, "pipeline_parallel_size": 1, "data_parallel_size": 1,
    "decode_context_parallel_size": 1, "max_num_seqs": 1, "max_num_batched_tokens": 1,
    "kv_cache_memory_bytes": 1, "num_gpu_blocks_override": 1, "block_size": 1, "max_cudagraph_capture_size": 1,
    "cpu_offload_gb": 0,
}  # fmt: skip
_KINDS = {
    "bool": "true or false", "int": "a whole number", "size": "a whole number such as 2048, 16k or 16K",
    "size_or_auto": "a whole number such as 2048, 16k or auto", "float": "a number", "list": "a list",
    "json": "a JSON object", "str_or_json": "text, or a whole JSON object", "str": "text",
}  # fmt: skip
_WANTED: Mapping[str, Any] = {
    "bool": (bool,), "int": (int,), "size": (int,), "size_or_auto": (int,), "float": (int, float), "list": (list,),
    "json": (dict, list), "str_or_json": (dict,), "str": (int, float, bool),
}  # fmt: skip


@dataclass(frozen=True)
class EngineArgument:
    """One argument. `kind` is one of `_KINDS`; `items` that of a list's items; `short` such as `-tp`."""

    name: str
    kind: str
    choices: tuple[str, ...] = ()
    items: str = "str"
    short: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def what(self) -> str:
        """What a value of it must be."""
        if self.name == "gpu_memory_utilization":
            return "above 0 and at most 1"
        least = f" of at least {_LEAST[self.name]}" if self.name in _LEAST else ""
        return f"{_KINDS[self.kind]}{least}"

    def is_in_range(self, value: Any) -> bool:
        if self.name == "gpu_memory_utilization":
            return bool(0 < value <= 1)
        if self.name == "max_model_len":
            return bool(value == AUTO_LENGTH or value >= 1)
        return self.name not in _LEAST or value >= _LEAST[self.name]


@dataclass(frozen=True)
class CommandWords:
    """What stands on a command line: words without a name, engine arguments by vLLM's names, and other options."""

    words: tuple[str, ...]
    arguments: Mapping[str, Any]
    others: Mapping[str, Any]


@cache
def engine_arguments() -> Mapping[str, EngineArgument]:
    """vLLM's engine arguments by field name, as scripts/engine_arguments.py read them off the engine."""
    text = (files("orchestrator.catalog") / "data/engine_arguments.json").read_text()
    return {
        name: EngineArgument(
            name, row["kind"], tuple(row.get("choices", ())), row.get("items", "str"), row.get("short", "")
        )
        for name, row in json.loads(text)["arguments"].items()
    }


@cache
def _short_forms() -> Mapping[str, str]:
    return {argument.short: name for name, argument in engine_arguments().items() if argument.short}


# --- command lines ---------------------------------------------------------------------------------------------------


def read_words(words: Iterable[str], any_value: Collection[str] = ()) -> CommandWords:
    """A command line as vLLM reads it; of the arguments in `any_value` choices are not checked.

    Raises `ConfigError`, naming the argument, for a missing or a wrong value.
    """
    queue = list(words)
    plain: list[str] = []
    found: dict[str, Any] = {}
    others: dict[str, Any] = {}
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            plain.append(word)
            continue
        option, has_value, text = word.partition("=")
        value = text if has_value else None
        whole, _, key = option.partition(".")
        name = field_of(whole)
        argument = engine_arguments().get(name)
        if argument is not None and key:
            found[name] = _with_key(argument, found.get(name, {}), key, _one_value(argument, value, queue))
        elif argument is not None:
            found[name] = _value(argument, value, queue, argument.name in any_value)
        elif (switch := _switched_off(name)) is not None:
            if value is not None:
                raise ConfigError(f"{option} takes no value; write {option}, or {switch.flag}={value}")
            found[switch.name] = False
        else:
            others[name] = _of_another(value, queue)
    return CommandWords(tuple(plain), found, others)


def field_of(option: str) -> str:
    """`tensor_parallel_size` from `--tensor-parallel-size`, `--tensor_parallel_size` or `-tp`."""
    return _short_forms().get(option, option.lstrip("-").replace("-", "_"))


def unknown_argument(name: str) -> str:
    """That there is no such argument, and which may have been meant."""
    known = engine_arguments()
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(known[n].flag for n in near)}?" if near else ""
    return f"vLLM has no engine argument --{name.replace('_', '-')}{hint}"


def _switched_off(name: str) -> EngineArgument | None:
    argument = engine_arguments().get(name.removeprefix("no_"))
    return argument if name.startswith("no_") and argument is not None and argument.kind == "bool" else None


def _value(argument: EngineArgument, value: str | None, queue: list[str], any_value: bool) -> Any:
    if argument.kind == "bool" and value is None:
        return True
    if argument.kind == "list" and value is None:
        return _parse(argument, _many_values(argument, queue))
    text = _one_value(argument, value, queue)
    return text if any_value else _parse(argument, [text])


def _one_value(argument: EngineArgument, value: str | None, queue: list[str]) -> str:
    if value is not None:
        return value
    if not queue or queue[0].startswith("--"):
        raise ConfigError(f"{argument.flag} needs a value")
    return queue.pop(0)


def _many_values(argument: EngineArgument, queue: list[str]) -> list[str]:
    taken: list[str] = []
    while queue and not queue[0].startswith("--"):
        taken.append(queue.pop(0))
    if not taken:
        raise ConfigError(f"{argument.flag} needs at least one value")
    return taken


def _of_another(value: str | None, queue: list[str]) -> Any:
    """The value of an option that is none of the engine's: what follows it, unless that is an option too."""
    if value is not None:
        return value
    return True if not queue or queue[0].startswith("-") else queue.pop(0)


def _with_key(argument: EngineArgument, config: Any, key: str, text: str) -> dict[str, Any]:
    """A JSON argument with one more of its keys set, nested ones by dots; `key+` holds a list."""
    if argument.kind not in ("json", "str_or_json"):
        raise ConfigError(f"{argument.flag} has no {key!r}; it must be {argument.what}")
    if not isinstance(config, dict):
        raise ConfigError(f"{argument.flag} is {config!r}, which has no {key!r}; it must be a JSON object")
    value: Any = text.split(",") if key.endswith("+") else _loose(text)
    return _merged(config, key.removesuffix("+").split("."), value)


def _merged(config: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    first, rest = keys[0], keys[1:]
    if not rest:
        return {**config, first: value}
    inner = config.get(first)
    return {**config, first: _merged(inner if isinstance(inner, dict) else {}, rest, value)}


def _loose(text: str) -> Any:
    """JSON, a size such as 80g, or else text, which need not be quoted."""
    for parse in (json.loads, _parse_size):
        try:
            return parse(text)
        except (ValueError, RecursionError):
            continue
    return text


# --- files -----------------------------------------------------------------------------------------------------------


def check(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments from a file: names and kinds checked, text values parsed as on the command line."""
    return {argument.name: _coerce(argument, value) for argument, value in _all_named(arguments)}


def _all_named(arguments: Mapping[str, Any]) -> Iterable[tuple[EngineArgument, Any]]:
    for name, value in arguments.items():
        argument = engine_arguments().get(field_of(str(name)))
        if argument is None:
            raise ConfigError(unknown_argument(field_of(str(name))))
        yield argument, value


def _coerce(argument: EngineArgument, value: Any) -> Any:
    if isinstance(value, str):
        return _parse(argument, [value])
    wrong_bool = isinstance(value, bool) and argument.kind in ("int", "size", "size_or_auto", "float")
    if wrong_bool or not isinstance(value, _WANTED[argument.kind]):
        raise ConfigError(f"{argument.flag}: {reprlib.repr(value)} is not {argument.what}")
    if argument.kind == "list":
        return _parse(argument, [str(item) for item in value])
    if argument.choices:
        return _parse(argument, [str(value)])
    return _in_range(argument, value) if argument.kind in ("int", "size", "size_or_auto", "float") else value


def _in_range(argument: EngineArgument, number: float) -> float:
    try:
        value = float(number) if argument.kind == "float" else number
    except OverflowError:
        value = math.inf
    if not argument.is_in_range(value) or value in (math.inf, -math.inf) or value != value:
        raise ConfigError(f"{argument.flag}: {reprlib.repr(number)} is not {argument.what}")
    return value


# --- values ----------------------------------------------------------------------------------------------------------


def _parse(argument: EngineArgument, texts: Sequence[str]) -> Any:
    if argument.kind == "list":
        return [_parse_one(argument, argument.items, _KINDS[argument.items], text) for text in texts]
    value = _parse_one(argument, argument.kind, argument.what, texts[0])
    if not argument.is_in_range(value):
        raise ConfigError(f"{argument.flag}: {texts[0][:100]!r} is not {argument.what}")
    return value


def _parse_one(argument: EngineArgument, kind: str, what: str, text: str) -> Any:
    if argument.choices and text not in argument.choices:
        is_fp8 = argument.name == "dtype" and text.startswith(("fp8", "float8"))
        mend = "; FP8 weights are asked for by --quantization fp8" if is_fp8 else ""
        raise ConfigError(f"{argument.flag}: {text[:100]!r} is not one of {', '.join(argument.choices)}{mend}")
    try:
        return _PARSERS[kind](text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{argument.flag}: {text[:100]!r} is not {what}") from None


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _parse_size(text: str) -> int:
    """Decimals only with decimal factors, as in vLLM, and only where a whole number comes of it."""
    match = re.fullmatch(r"(-?\d{1,30}(?:\.\d{1,30})?)([kKmMgGtT]?)", text.strip())
    if match is None:
        raise ValueError
    number, suffix = match.groups()
    if suffix in _BINARY:
        return int(number) * _BINARY[suffix]
    size = Decimal(number) * _DECIMAL[suffix]
    if size != int(size):
        raise ValueError
    return int(size)


def _parse_size_or_auto(text: str) -> int:
    return AUTO_LENGTH if text.strip().lower() == "auto" else _parse_size(text)


def _parse_float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError
    return number


def _parse_json(text: str) -> Any:
    if not isinstance(document := json.loads(text), (dict, list)):
        raise ValueError
    return document


def _parse_str_or_json(text: str) -> Any:
    return json.loads(text) if text.startswith("{") else text


_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "bool": _parse_bool, "int": int, "size": _parse_size, "size_or_auto": _parse_size_or_auto,
    "float": _parse_float, "json": _parse_json, "str_or_json": _parse_str_or_json, "str": str,
}  # fmt: skip
