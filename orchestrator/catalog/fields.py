"""Typed reading of a foreign JSON document: a failure names the source, the field and what it must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError

# No published model comes near it; a larger value is a slip, and would only overflow somewhere less clear.
LARGEST_SIZE = 2**40


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
            raise ConfigError(f"{self.source}: {name} is {value!r}; it must be true or false")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{self.source}: {name} is {value!r}; it must be a number")
        return float(value)

    def text(self, *names: str, default: str | None = None) -> str:
        for name in names:
            value = self.values.get(name)
            if isinstance(value, str):
                return value
            if value is not None:
                raise ConfigError(f"{self.source}: {name} is {value!r}; it must be a string")
        if default is None:
            raise ConfigError(f"{self.source}: {' or '.join(names)} is missing; it must be a string")
        return default

    def items(self, name: str) -> tuple[Any, ...]:
        """The list under `name`, empty where it is absent or null."""
        value = self.values.get(name)
        if value is None:
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ConfigError(f"{self.source}: {name} is {value!r}; it must be a list")
        return tuple(value)

    def part(self, name: str) -> Fields | None:
        """The nested document under `name`, or None."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.source}: {name} is {value!r}; it must be an object")
        return Fields(value, f"{self.source}: {name}")

    def _checked_size(self, name: str, minimum: int) -> int:
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{self.source}: {name} is {value!r}; it must be a whole number")
        if not minimum <= value <= LARGEST_SIZE:
            raise ConfigError(f"{self.source}: {name} is {value}; it must be between {minimum} and {LARGEST_SIZE}")
        return value
