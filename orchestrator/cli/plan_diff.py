"""`plan-diff`: how two plans differ."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from orchestrator.plan import load_plan
from orchestrator.plan.diff import Change, diff

CHANGES_SHOWN = 60


def plan_diff(
    before: Annotated[Path, typer.Argument(help="A plan, as `plan --json` prints it.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Compare two plans field by field, rank by rank; prints nothing but a line where they are equal."""
    changes = diff(load_plan(before), load_plan(after))
    if as_json:
        typer.echo(json.dumps([asdict(change) for change in changes], indent=2, ensure_ascii=False))
    elif not changes:
        typer.echo("the plans are equal")
    else:
        _print(changes)


def _print(changes: tuple[Change, ...]) -> None:
    table = Table("field", "before", "after", box=box.SIMPLE_HEAD)
    for change in changes[:CHANGES_SHOWN]:
        table.add_row(change.path, _short(change.before), _short(change.after))
    if len(changes) > CHANGES_SHOWN:
        table.caption = f"{len(changes) - CHANGES_SHOWN} more; --json prints them all"
    Console().print(table)


def _short(value: Any) -> str:
    text = "–" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 70 else f"{text[:69]}…"
