"""What a key may use, as data. Nothing set means no limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from orchestrator.errors import ConfigError

# A whole number of anything that fits a 64-bit column with room for sums.
LARGEST = 10**15


@dataclass(frozen=True)
class Limits:
    """Limits of one key, over all models and replicas. Tokens are those of prompts and answers together.

    Days and months are UTC's. Budgets are in tokens: usage is kept by day and model, which is what prices need.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    max_prompt_tokens: int | None = None
    max_answer_tokens: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not (type(value) is int and 1 <= value <= LARGEST):
                raise ConfigError(f"{name}: {value!r} is no limit; use a whole number from 1, or leave it out")

    @property
    def leased(self) -> bool:
        """Whether replicas have to share something out among themselves."""
        return any((
            self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests,
            self.tokens_per_day, self.tokens_per_month,
        ))  # fmt: skip

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited over any time."""
        return any((self.tokens_per_minute, self.tokens_per_day, self.tokens_per_month))

    @property
    def most_tokens(self) -> int | None:
        """What no single request can use: the smallest of the limits in tokens over a time."""
        set_ones = [each for each in (self.tokens_per_minute, self.tokens_per_day, self.tokens_per_month) if each]
        return min(set_ones, default=None)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Limits:
        """Raises `ConfigError` on a name that is no limit."""
        unknown = sorted(set(document) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"{unknown[0]} is not a limit; the limits are {', '.join(f.name for f in fields(cls))}")
        return cls(**document)

    def to_json(self) -> dict[str, int]:
        """The limits that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_LIMITS = Limits()
