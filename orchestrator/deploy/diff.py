"""What a redeployment would change, as dotted paths with the value before and after. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Change:
    """One changed setting; `before` or `after` is None where it was, or will be, unset."""

    path: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.path}: {_show(self.before)} → {_show(self.after)}"


def differences(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Every setting that differs between two trees of mappings; lists are compared whole."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, _ABSENT), after.get(key, _ABSENT), inner)
    elif before is not after and before != after:
        yield Change(path, _known(before), _known(after))


def _known(value: Any) -> Any:
    return None if value is _ABSENT else value


def _show(value: Any) -> str:
    return "(unset)" if value is None else str(value)
