"""A `vllm serve …` command line, or the engine arguments of one, read as vLLM reads them.

Dashes and underscores are one, `--name value` and `--name=value` are one, `--no-name` turns a switch off,
and 32k is 32,000 while 32K is 32,768 (vllm/utils/argparse_utils.py).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.errors import ConfigError

Kind = Literal["count", "tokens", "fraction", "text", "switch", "json"]

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
    "max_model_len": "tokens",
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
}
_SHORT = {
    "-tp": "tensor_parallel_size",
    "-pp": "pipeline_parallel_size",
    "-dp": "data_parallel_size",
    "-dcp": "decode_context_parallel_size",
    "-ep": "enable_expert_parallel",
    "-q": "quantization",
}
# Switches of vLLM's that take no value and do not bear on memory; other unknown names may take one.
_OTHER_SWITCHES = {
    "enable_auto_tool_choice",
    "disable_log_requests",
    "disable_log_stats",
    "enable_log_requests",
    "enable_chunked_prefill",
    "enable_ep_weight_filter",
    "disable_custom_all_reduce",
    "skip_tokenizer_init",
    "headless",
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
        name, value = _split(word)
        name, negated = _without_no(name)
        kind = ENGINE_ARGUMENTS.get(name)
        if kind == "switch":
            arguments[name] = _switch(name, value, negated)
        elif kind is not None:
            arguments[name] = _read(name, kind, _value(name, value, queue))
        elif name.startswith("eplb_config."):
            config = arguments.setdefault("eplb_config", {})
            config[name.partition(".")[2]] = _read(name, "json", _value(name, value, queue))
        elif name == "model":
            model = _only_model(model, _value(name, value, queue))
        else:
            others[name] = _other(name, value, negated, queue)
    return CommandLine(model, arguments, others, env or {})


def _only_model(model: str | None, word: str) -> str:
    if model is not None:
        raise ConfigError(f"two models are named: {model!r} and {word!r}")
    return word


def _split(word: str) -> tuple[str, str | None]:
    name, has_value, value = word.partition("=")
    name = _SHORT.get(name, name).lstrip("-").replace("-", "_")
    return name, value if has_value else None


def _without_no(name: str) -> tuple[str, bool]:
    plain = name.removeprefix("no_")
    return (plain, True) if plain != name and ENGINE_ARGUMENTS.get(plain) == "switch" else (name, False)


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
    if negated or name in _OTHER_SWITCHES or not queue or queue[0].startswith("-"):
        return True
    return queue.pop(0)


def _read(name: str, kind: Kind, value: str) -> Any:
    try:
        return _READERS[kind](value)
    except (ValueError, KeyError):
        expected = _EXPECTED[kind]
        raise ConfigError(f"--{_dashed(name)} is {value!r}; it must be {expected}") from None


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


def _fraction(value: str) -> float:
    number = float(value)
    if not 0 < number <= 1:
        raise ValueError(value)
    return number


_READERS: dict[Kind, Callable[[str], Any]] = {
    "count": _count,
    "tokens": _tokens,
    "fraction": _fraction,
    "text": str,
    "json": json.loads,
}
_EXPECTED = {
    "count": "a whole number of at least 1",
    "tokens": "a whole number of at least 1, such as 32768, 32k (32,000) or 32K (32,768)",
    "fraction": "above 0 and at most 1",
    "text": "text",
    "json": "JSON",
}


def _dashed(name: str) -> str:
    return name.replace("_", "-")
