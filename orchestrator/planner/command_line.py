"""A `vllm serve …` command, or the engine arguments of one: which of them bear on memory or layout."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.catalog.engine_arguments import (
    CommandWords,
    engine_arguments,
    read_words,
    unknown_argument,
)
from orchestrator.errors import ConfigError

# Every argument that bears on memory or layout. Others are only named in the plan.
PLANNED_ARGUMENTS = (
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "decode_context_parallel_size",
    "enable_expert_parallel",
    "expert_placement_strategy",
    "enable_eplb",
    "eplb_config",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "num_gpu_blocks_override",
    "block_size",
    "quantization",
    "dtype",
    "enforce_eager",
    "enable_prefix_caching",
    "trust_remote_code",
    "async_scheduling",
    "disable_hybrid_kv_cache_manager",
    "language_model_only",
    "cpu_offload_gb",
    "max_cudagraph_capture_size",
    "speculative_config",
)
# What vLLM refuses here is mended, and said to be (`mend_dtype`).
_MENDED = ("dtype",)
# How near an unknown name must be to one of `PLANNED_ARGUMENTS` to be taken for a slip.
_NEAR = 0.85
_ENVIRONMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_LAUNCHERS = (["vllm", "serve"], ["-m", "vllm.entrypoints.openai.api_server"])


@dataclass(frozen=True)
class CommandLine:
    """What a command says. `arguments` bear on memory or layout; `others` do not."""

    model: str | None
    arguments: Mapping[str, Any]
    others: Mapping[str, Any]
    env: Mapping[str, str] = field(default_factory=dict)


def read_command(text: str) -> CommandLine:
    """A whole command. Raises `ConfigError` for anything but a `vllm serve` (or its module).

    The server's own options are set aside with the engine's that do not bear on memory; a slip in the name of one
    that does is refused.
    """
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise ConfigError(f"--from-command: {str(error).lower()}") from None
    env: dict[str, str] = {}
    while words and (match := _ENVIRONMENT.fullmatch(words[0])):
        env[match.group(1)] = match.group(2)
        words = words[1:]
    read = read_words(_after_launcher(words, text), any_value=_MENDED)
    if "config" in read.others:
        raise ConfigError("--config names a file of further arguments, which is not read here; write them out")
    for name in read.others:
        if difflib.get_close_matches(name, PLANNED_ARGUMENTS, n=1, cutoff=_NEAR):
            raise ConfigError(unknown_argument(name))
    return _command_line(read, env)


def _after_launcher(words: list[str], text: str) -> list[str]:
    for launcher in _LAUNCHERS:
        for start in range(len(words) - 1):
            if [_base_name(words[start]), words[start + 1]] == launcher:
                return words[start + 2 :]
    raise ConfigError(f"--from-command reads `vllm serve MODEL …`, not {text.strip()[:60]!r}")


def _base_name(word: str) -> str:
    return word.rpartition("/")[2]


def read_arguments(words: Iterable[str]) -> CommandLine:
    """A model and the arguments to be fixed. Raises `ConfigError`, naming it, for one that cannot be."""
    read = _command_line(read_words(words, any_value=_MENDED), {})
    if read.others:
        raise ConfigError(_why_not(next(iter(read.others))))
    return read


def _command_line(read: CommandWords, env: Mapping[str, str]) -> CommandLine:
    planned = {name: value for name, value in read.arguments.items() if name in PLANNED_ARGUMENTS}
    others = {name: value for name, value in read.arguments.items() if name not in (*PLANNED_ARGUMENTS, "model")}
    named = (read.arguments["model"],) if "model" in read.arguments else ()
    return CommandLine(_only_model((*read.words, *named)), planned, {**others, **read.others}, env)


def _only_model(words: Sequence[str]) -> str | None:
    if len(words) > 1:
        raise ConfigError(f"two models are named: {words[0]!r} and {words[1]!r}")
    return words[0] if words else None


def _why_not(name: str) -> str:
    """Why an argument cannot be fixed in a plan, and what may have been meant."""
    flag = f"--{name.replace('_', '-')}"
    if name in engine_arguments():
        return f"{flag} does not bear on memory or layout: give it to deploy, not to plan"
    return f"{flag} is no option of plan, and {unknown_argument(name)}"
