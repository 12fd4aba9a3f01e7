"""YAML for people: by hand, where comments are to stand inside, and in blocks."""

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


class _Blocks(yaml.SafeDumper):
    """Lists set in, texts of several lines as they are, nothing by reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's name
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's name
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _text)


def block(value: object) -> str:
    """A value in YAML's block style."""
    return yaml.dump(value, Dumper=_Blocks, sort_keys=False, width=10_000, allow_unicode=True)
