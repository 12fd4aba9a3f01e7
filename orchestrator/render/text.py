"""YAML written by hand, so that comments can stand where the person who edits it needs them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

import yaml


def comment(text: str) -> str:
    """Paragraphs as `#` lines; lines that begin with a space keep their shape."""
    lines: list[str] = []
    for line in text.strip("\n").splitlines():
        lines += [line] if line.startswith(" ") or not line else textwrap.wrap(line, 108)
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def commands(key: str, scripts: Iterable[str]) -> str:
    """A list of shell commands under `key`, each a literal block."""
    items = "".join("  - |\n" + textwrap.indent(script, "    ") for script in scripts)
    return f"{key}:\n{items}" if items else f"{key}: []\n"


def flow(value: object) -> str:
    """A value on one line, as YAML's flow style writes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("\n...\n").strip()
