"""What keys have used: by day and model for good, by second for the last minute."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from orchestrator.store.database import transaction

WINDOW_S = 60
# What a replica told is kept for so long after its last word: a replica that was out of reach tells the same sums.
TOLD_KEPT_S = 2 * 86_400


@dataclass(frozen=True)
class Used:
    """Requests, and tokens of prompts and answers."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests, self.tokens_in + other.tokens_in, self.tokens_out + other.tokens_out
        )

    def since(self, earlier: Used) -> Used:
        """What came on top of an earlier sum."""
        return Used(
            self.requests - earlier.requests, self.tokens_in - earlier.tokens_in, self.tokens_out - earlier.tokens_out
        )


@dataclass(frozen=True)
class Fact:
    """What one replica told more of one key, at one moment, and its sums so far."""

    session: str
    model: str
    key_id: str
    at_s: int
    more: Used
    sums: Used


@dataclass(frozen=True)
class Remembered:
    """What a front that begins has to know of before."""

    told: dict[tuple[str, str], Used]
    recent: list[tuple[str, int, int, int]]
    day: dict[str, int]
    month: dict[str, int]


def day_of(at_s: float) -> str:
    """The day of a Unix time in UTC, as 2026-01-31."""
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%d")


class UsageStore:
    """Usage in one database."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def append(self, facts: Iterable[Fact], now_s: float) -> None:
        """Keep what was told, and with it how far each replica's sums are counted: both or neither."""
        with transaction(self._database):
            for fact in facts:
                more, sums = fact.more, fact.sums
                self._database.execute(
                    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + "
                    "excluded.requests, tokens_in = tokens_in + excluded.tokens_in, "
                    "tokens_out = tokens_out + excluded.tokens_out",
                    (day_of(fact.at_s), fact.key_id, fact.model, more.requests, more.tokens_in, more.tokens_out),
                )
                self._database.execute(
                    "INSERT INTO recent VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "requests = requests + excluded.requests, tokens = tokens + excluded.tokens",
                    (fact.key_id, fact.at_s, more.requests, more.tokens),
                )
                self._database.execute(
                    "INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?, ?)",
                    (fact.session, fact.key_id, fact.at_s, sums.requests, sums.tokens_in, sums.tokens_out),
                )
            self._database.execute("DELETE FROM recent WHERE second <= ?", (int(now_s) - WINDOW_S,))
            self._database.execute("DELETE FROM told WHERE at_s <= ?", (int(now_s) - TOLD_KEPT_S,))

    def remembered(self, now_s: float) -> Remembered:
        """What counts towards limits at this moment."""
        told = {
            (session, key_id): Used(*sums)
            for session, key_id, *sums in self._database.execute(
                "SELECT session, key_id, requests, tokens_in, tokens_out FROM told"
            )
        }
        recent = self._database.execute("SELECT * FROM recent WHERE second > ?", (int(now_s) - WINDOW_S,)).fetchall()
        today = day_of(now_s)
        return Remembered(told, recent, self._tokens(today), self._tokens(f"{today[:7]}%"))

    def _tokens(self, days: str) -> dict[str, int]:
        return dict(
            self._database.execute(
                "SELECT key_id, SUM(tokens_in + tokens_out) FROM usage WHERE day LIKE ? GROUP BY key_id", (days,)
            ).fetchall()
        )

    def by_key(self, days: str) -> dict[str, Used]:
        """What each key used on the days that begin with `days`: 2026-01-31, or 2026-01 for a month."""
        rows = self._database.execute(
            "SELECT key_id, SUM(requests), SUM(tokens_in), SUM(tokens_out) FROM usage WHERE day LIKE ? GROUP BY key_id",
            (f"{days}%",),
        )
        return {key_id: Used(*sums) for key_id, *sums in rows}
