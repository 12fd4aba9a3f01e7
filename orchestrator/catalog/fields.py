"""Typed reading of a foreign JSON document: a failure names the source, the field and what it must be."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from orchestrator.errors import ConfigError

# No published model comes near these; a larger value is a slip, and would only fail somewhere less clear.
LARGEST_SIZE = 2**40
LARGEST_COUNT = 10_000


@dataclass(frozen=True)
class Fields:
    """A mapping read by name and type; `source` is what error messages call the document."""

    values: Mapping[str, Any]
    source: str

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def size(self, *names: str, default: int | None = None, minimum: int = 1) -> int:
        """A whole number of at least `minimum`, under the first of `names` that is present."""
        for name in names:
            if self.has(name):
                return self._checked_size(name, minimum)
        if default is None:
            raise ConfigError(f"{self.source}: {' or '.join(names)} is missing; it must be a whole number")
        return default

    def count(self, *names: str) -> int:
        """A number of layers or experts."""
        number = self.size(*names)
        if number > LARGEST_COUNT:
            name = next(name for name in names if self.has(name))
            raise ConfigError(f"{self.source}: {name} is {number}; it must be at most {LARGEST_COUNT}")
        return number

    def pair(self, name: str) -> tuple[int, int] | None:
        """Two whole numbers of at least 1, or None where there are none."""
        items = self.items(name)
        if not items:
            return None
        if len(items) != 2 or not all(_is_whole(item) and 1 <= item <= LARGEST_SIZE for item in items):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(list(items))}; it must be two whole numbers")
        return items[0], items[1]

    def names(self, name: str) -> tuple[str, ...]:
        """A list of strings, empty where it is absent or null."""
        items = self.items(name)
        if not all(isinstance(item, str) for item in items):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(list(items))}; it must be a list of strings")
        return items

    def stated_size(self, name: str) -> int:
        """A whole number or null, which counts as 0; absent it is an error, since its default differs."""
        if name in self.values and self.values[name] is None:
            return 0
        return self.size(name, minimum=0)

    def optional_size(self, name: str, minimum: int = 1) -> int | None:
        return self._checked_size(name, minimum) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be true or false")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be a number")
        if not -LARGEST_SIZE <= value <= LARGEST_SIZE:
            raise ConfigError(f"{self.source}: {name} is {value}; it must be between ±{LARGEST_SIZE}")
        return float(value)

    def text(self, *names: str, default: str | None = None) -> str:
        for name in names:
            value = self.values.get(name)
            if isinstance(value, str):
                return value
            if value is not None:
                raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be a string")
        if default is None:
            raise ConfigError(f"{self.source}: {' or '.join(names)} is missing; it must be a string")
        return default

    def items(self, name: str) -> tuple[Any, ...]:
        """The list under `name`, empty where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be a list")
        return tuple(value)

    def part(self, name: str) -> Fields | None:
        """The nested document under `name`, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be an object")
        return Fields(value, f"{self.source}: {name}")

    def _checked_size(self, name: str, minimum: int) -> int:
        value = self.values[name]
        if not _is_whole(value):
            raise ConfigError(f"{self.source}: {name} is {reprlib.repr(value)}; it must be a whole number")
        if not minimum <= value <= LARGEST_SIZE:
            raise ConfigError(f"{self.source}: {name} is {value}; it must be between {minimum} and {LARGEST_SIZE}")
        return value


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
