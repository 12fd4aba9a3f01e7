"""Engine rules as data: what an engine of a given version refuses, or suffers under, and the mend.

A rule holds for an engine, a range of versions and a set of facts about a plan; data/engine_rules.json has
them with their sources. A user's file of the same shape can add to them.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from orchestrator.errors import ConfigError
from orchestrator.validation import first_problem, read_text

MAX_FILE_BYTES = 1024 * 1024
Fact = str | int | float | bool | None

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "in": lambda fact, values: fact in values,
    "prefix": lambda fact, start: str(fact).startswith(start),
}
_VERSION_BOUND = re.compile(r"(>=|<=|==|<|>)\s*(\d+(?:\.\d+)*)")


class EngineRule(BaseModel):
    """One rule. `when` maps a fact to {comparison: value}; a fact that is unknown never matches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    severity: Literal["error", "warning", "note"]
    engine: str
    versions: str
    when: dict[str, dict[str, Any]]
    message: str
    mend: str
    source: str
    date: str

    @field_validator("when")
    @classmethod
    def _known_comparisons(cls, when: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for fact, tests in when.items():
            unknown = sorted(set(tests) - set(_COMPARE))
            if unknown:
                raise ValueError(f"{fact} is compared by {unknown[0]!r}; known are {', '.join(_COMPARE)}")
        return when

    @field_validator("versions")
    @classmethod
    def _known_versions(cls, versions: str) -> str:
        bounds = [] if versions == "*" else versions.split(",")
        for bound in bounds:
            if _VERSION_BOUND.fullmatch(bound.strip()) is None:
                raise ValueError(f"{bound.strip()!r} is no version bound; write >=0.11,<0.29 or *")
        return versions

    def applies_to(self, engine: str, version: str) -> bool:
        return self.engine in ("*", engine) and all(
            _COMPARE[_OPERATORS[sign]](parse_version(version), parse_version(bound))
            for sign, bound in _VERSION_BOUND.findall(self.versions)
        )

    def matches(self, facts: Mapping[str, Fact]) -> bool:
        return all(
            facts.get(name) is not None and _COMPARE[comparison](facts[name], value)
            for name, tests in self.when.items()
            for comparison, value in tests.items()
        )

    def sentence(self, facts: Mapping[str, Fact]) -> str:
        return f"{self.message}; {self.mend}".format_map(_Facts(facts))


_OPERATORS = {">=": "ge", "<=": "le", "==": "eq", "<": "lt", ">": "gt"}


class _Facts(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return f"unknown {name}"


class _RuleFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    about: str = ""
    rules: tuple[EngineRule, ...]


def parse_version(text: str) -> tuple[int, ...]:
    """(0, 29) from `0.29.0`, `0.29.0rc1` or `v0.29`: trailing zeros do not count."""
    numbers = [int(number) for number in re.findall(r"\d+", text.split("rc")[0].split("+")[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_version(text: str) -> str:
    """The version, if it is one. Raises `ConfigError`: rules compare versions, and a word compares as the oldest."""
    if re.fullmatch(r"v?\d{1,6}(\.\d{1,6}){0,3}([a-z.+-][\w.+-]*)?", text) is None:
        raise ConfigError(f"{text!r} is no version of an engine; write for example 0.29.0")
    return text


@lru_cache(maxsize=1)
def built_in_rules() -> tuple[EngineRule, ...]:
    data = resources.files("orchestrator.catalog").joinpath("data/engine_rules.json")
    return _RuleFile.model_validate(json.loads(data.read_text("utf-8"))).rules


def load_rules(path: Path) -> tuple[EngineRule, ...]:
    """Rules from a user's file. Raises `ConfigError`, naming the field."""
    try:
        return _RuleFile.model_validate_json(read_text(path, MAX_FILE_BYTES, "file of engine rules")).rules
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_problem(error)}") from None


def matching_rules(
    facts: Mapping[str, Fact], engine: str, version: str, rules: Iterable[EngineRule] | None = None
) -> tuple[EngineRule, ...]:
    """The rules that hold for this engine, this version and these facts, in the file's order."""
    known = built_in_rules() if rules is None else rules
    return tuple(rule for rule in known if rule.applies_to(engine, version) and rule.matches(facts))
