"""A `vllm serve …` command line, or the engine arguments of one, read as vLLM reads them.

Dashes and underscores are one, `--name value` and `--name=value` are one, `--no-name` turns a switch off,
and 32k is 32,000 while 32K is 32,768 (vllm/utils/argparse_utils.py).
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

from orchestrator.catalog.suggest import suggest
from orchestrator.errors import ConfigError

Kind = Literal["count", "tokens", "length", "fraction", "amount", "text", "switch", "json"]

# What `--max-model-len auto` stands for, as in vLLM.
AUTO_LENGTH = -1

# Every argument that bears on memory or layout. Others are only named in the plan.
ENGINE_ARGUMENTS: dict[str, Kind] = {
    "tensor_parallel_size": "count",
    "pipeline_parallel_size": "count",
    "data_parallel_size": "count",
    "decode_context_parallel_size": "count",
    "enable_expert_parallel": "switch",
    "expert_placement_strategy": "text",
    "enable_eplb": "switch",
    "eplb_config": "json",
    "gpu_memory_utilization": "fraction",
    "max_model_len": "length",
    "max_num_seqs": "count",
    "max_num_batched_tokens": "tokens",
    "kv_cache_dtype": "text",
    "kv_cache_memory_bytes": "tokens",
    "num_gpu_blocks_override": "count",
    "block_size": "count",
    "quantization": "text",
    "dtype": "text",
    "enforce_eager": "switch",
    "enable_prefix_caching": "switch",
    "trust_remote_code": "switch",
    "async_scheduling": "switch",
    "disable_hybrid_kv_cache_manager": "switch",
    "language_model_only": "switch",
    "cpu_offload_gb": "amount",
    "max_cudagraph_capture_size": "count",
    "speculative_config": "json",
}
_SHORT = {
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
    "-dcp": "decode_context_parallel_size",
    "-ep": "enable_expert_parallel",
    "-q": "quantization",
}
_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_ENVIRONMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_LAUNCHERS = (["vllm", "serve"], ["-m", "vllm.entrypoints.openai.api_server"])


@dataclass(frozen=True)
class CommandLine:
    """What a command says. `arguments` bear on memory or layout; `others` do not."""

    model: str | None
    arguments: dict[str, Any]
    others: dict[str, Any]
    env: dict[str, str]


def read_command(text: str) -> CommandLine:
    """A whole command. Raises `ConfigError` for anything but a `vllm serve` (or its module)."""
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"--from-command: {str(error).lower()}") from None
    env: dict[str, str] = {}
    while words and (match := _ENVIRONMENT.fullmatch(words[0])):
        env[match.group(1)] = match.group(2)
        words = words[1:]
    return read_arguments(_after_launcher(words, text), env)


def _after_launcher(words: list[str], text: str) -> list[str]:
    for launcher in _LAUNCHERS:
        for start in range(len(words) - 1):
            if [_base_name(words[start]), words[start + 1]] == launcher:
                return words[start + 2 :]
    raise ConfigError(f"--from-command reads `vllm serve MODEL …`, not {text.strip()[:60]!r}")


def _base_name(word: str) -> str:
    return word.rpartition("/")[2]


def read_arguments(words: Sequence[str], env: dict[str, str] | None = None) -> CommandLine:
    """Arguments after the launcher. Raises `ConfigError`, naming the argument, for a bad value."""
    queue = list(words)
    model: str | None = None
    arguments: dict[str, Any] = {}
    others: dict[str, Any] = {}
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            model = _only_model(model, word)
            continue
        name, value, negated = _split(word)
        whole, _, part = name.partition(".")
        if name == "model":
            model = _only_model(model, _value(name, value, queue))
        elif part and ENGINE_ARGUMENTS.get(whole) == "json":
            arguments[whole] = _with_part(whole, arguments.get(whole, {}), part, _value(name, value, queue))
        elif name in ENGINE_ARGUMENTS:
            arguments[name] = _argument(name, value, negated, queue)
        else:
            others[name] = _other(name, value, negated, queue)
    return CommandLine(model, arguments, others, env or {})


def _argument(name: str, value: str | None, negated: bool, queue: list[str]) -> Any:
    kind = ENGINE_ARGUMENTS[name]
    if kind == "switch":
        return _switch(name, value, negated)
    return _read(name, kind, _value(name, value, queue))


def _only_model(model: str | None, word: str) -> str:
    if model is not None:
        raise ConfigError(f"two models are named: {model!r} and {word!r}")
    return word


def _split(word: str) -> tuple[str, str | None, bool]:
    """(name with underscores, value after `=`, whether `no-` turns a switch off)."""
    name, has_value, value = word.partition("=")
    name = _SHORT.get(name, name).lstrip("-").replace("-", "_")
    plain = name.removeprefix("no_")
    negated = plain != name and ENGINE_ARGUMENTS.get(plain) == "switch"
    return plain if negated else name, value if has_value else None, negated


def _value(name: str, value: str | None, queue: list[str]) -> str:
    if value is not None:
        return value
    if not queue:
        raise ConfigError(f"--{_dashed(name)} needs a value")
    return queue.pop(0)


def _switch(name: str, value: str | None, negated: bool) -> bool:
    if value is not None:
        raise ConfigError(f"--{_dashed(name)} is a switch and takes no value, not {value!r}")
    return not negated


def _other(name: str, value: str | None, negated: bool, queue: list[str]) -> Any:
    if value is not None:
        return value
    if negated or _is_switch(name) or not queue or queue[0].startswith("-"):
        return True
    return queue.pop(0)


def _is_switch(name: str) -> bool:
    return any(_other_arguments().get(plain) == "bool" for plain in (name, name.removeprefix("no_")))


@lru_cache(maxsize=1)
def _other_arguments() -> dict[str, str]:
    """Every engine argument of vLLM with its kind, as read off the engine itself."""
    data = resources.files("orchestrator.catalog").joinpath("data/engine_arguments.json")
    arguments = json.loads(data.read_text("utf-8"))["arguments"]
    return {name: row["kind"] for name, row in arguments.items()}


def why_unknown(name: str) -> str:
    """Why an argument that is not in `ENGINE_ARGUMENTS` cannot be fixed, and what may have been meant."""
    flag = f"--{_dashed(name)}"
    if name in _other_arguments():
        return f"{flag} does not bear on memory or layout: give it to deploy, not to plan"
    return f"{flag} is neither an option of plan nor an engine argument{suggest(name, ENGINE_ARGUMENTS)}"


def _read(name: str, kind: Kind, value: str) -> Any:
    try:
        return _READERS[kind](value)
    except (ValueError, KeyError):
        expected = _EXPECTED[kind]
        raise ConfigError(f"--{_dashed(name)} is {value!r}; it must be {expected}") from None


def _with_part(name: str, config: Any, part: str, value: str) -> dict[str, Any]:
    """A JSON argument with one more of its keys set; text need not be quoted."""
    if not isinstance(config, dict):
        raise ConfigError(f"--{_dashed(name)} is {config!r}, which has no {part!r}; it must be a JSON object")
    try:
        return config | {part: json.loads(value)}
    except ValueError:
        return config | {part: value}


def _count(value: str) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(value)
    return number


def _tokens(value: str) -> int:
    match = _HUMAN.fullmatch(value.strip())
    if match is None:
        raise ValueError(value)
    number, suffix = match.groups()
    tokens = int(number) * _BINARY[suffix] if suffix in _BINARY else int(float(number) * _DECIMAL[suffix])
    if tokens < 1:
        raise ValueError(value)
    return tokens


def _length(value: str) -> int:
    return AUTO_LENGTH if value.strip().lower() in ("auto", "-1") else _tokens(value)


def _amount(value: str) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(value)
    return number


def _fraction(value: str) -> float:
    number = float(value)
    if not 0 < number <= 1:
        raise ValueError(value)
    return number


_READERS: dict[Kind, Callable[[str], Any]] = {
    "count": _count,
    "tokens": _tokens,
    "length": _length,
    "fraction": _fraction,
    "amount": _amount,
    "text": str,
    "json": json.loads,
}
_EXPECTED = {
    "count": "a whole number of at least 1",
    "tokens": "a whole number of at least 1, such as 32768, 32k (32,000) or 32K (32,768)",
    "length": "auto, or a whole number such as 32768, 32k (32,000) or 32K (32,768)",
    "fraction": "above 0 and at most 1",
    "amount": "a number of at least 0",
    "text": "text",
    "json": "JSON",
}


def _dashed(name: str) -> str:
    return name.replace("_", "-")
