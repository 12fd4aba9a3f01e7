"""How two plans differ: field by field, rank by rank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.plan.document import Plan

# Lists whose entries have a name of their own are compared by it, not by position.
_KEYS = {
    "nodes": ("name",),
    "ranks": ("replica", "rank"),
    "warnings": ("code", "message"),
    "rejected": ("parallelism", "code"),
}


@dataclass(frozen=True)
class Change:
    """One difference. `before` or `after` is None where the plan has no such field."""

    path: str
    before: Any
    after: Any


def diff(before: Plan, after: Plan) -> tuple[Change, ...]:
    """All differences, in the order of the document; none for equal plans."""
    return tuple(_changes("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _changes(path: str, before: Any, after: Any) -> Iterator[Change]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _changes(f"{path}.{key}" if path else key, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and path.rpartition(".")[2] in _KEYS:
        keys = _KEYS[path.rpartition(".")[2]]
        yield from _changes_by_key(path, _by_key(before, keys), _by_key(after, keys))
    else:
        yield Change(path, before, after)


def _changes_by_key(path: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    for key in [*before, *(key for key in after if key not in before)]:
        yield from _changes(f"{path}[{key}]", before.get(key), after.get(key))


def _by_key(entries: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[str, Any]:
    return {"/".join(_label(entry[key]) for key in keys): entry for entry in entries}


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return str(value)
