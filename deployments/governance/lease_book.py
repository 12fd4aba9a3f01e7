"""The front's side of limits: what every key has used and what is leased to which replica. Pure: time is handed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from deployments.governance.leases import (
    CONCURRENT,
    LEASED_SHARE,
    REQUESTS,
    TOKENS,
    Granted,
    KeyReport,
    LeaseAnswer,
    LeaseReport,
    Told,
)
from deployments.governance.window import Window
from orchestrator.store.limits import Limits
from orchestrator.store.usage import Fact, Remembered, Used, day_of

# A replica that has told nothing for this long holds nothing any more.
SILENT_S = 5.0
# When a slot or a lease held elsewhere comes back is not known; clients try again after so long.
HELD_ELSEWHERE_S = 1.0


@dataclass
class _Session:
    """One replica since it began."""

    number: int = -1
    seen_s: float = 0.0
    # What it holds beyond what it has spent, by key and resource.
    outstanding: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class _Use:
    """One key's use, over all replicas."""

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    day_tokens: int = 0
    month_tokens: int = 0


@dataclass(frozen=True)
class _Room:
    """What is free of a resource, who would have to wait how long for more, and by which budget."""

    free: int
    limit: int
    wait_s: float
    reset_s: float
    budget: str | None = None


class LeaseBook:
    """Use and leases of all keys."""

    def __init__(self, remembered: Remembered, now_s: float) -> None:
        self._told = dict(remembered.told)
        self._sessions: dict[str, _Session] = {}
        self._use: dict[str, _Use] = {}
        self._facts: dict[tuple[str, str, int], Fact] = {}
        self._day = day_of(now_s)
        for key_id, second, requests, tokens in sorted(remembered.recent, key=lambda row: row[1]):
            self._of(key_id).requests.add(second, requests)
            self._of(key_id).tokens.add(second, tokens)
        for key_id, tokens in remembered.day.items():
            self._of(key_id).day_tokens = tokens
        for key_id, tokens in remembered.month.items():
            self._of(key_id).month_tokens = tokens

    def exchange(self, report: LeaseReport, limits: Mapping[str, Limits], now_s: float) -> LeaseAnswer:
        """Take what a replica tells, and answer with its leases. `limits` are those of the keys in force."""
        self._turn_the_day(now_s)
        session = self._sessions.setdefault(report.session, _Session())
        if report.number <= session.number:
            return LeaseAnswer(known=False)
        session.number, session.seen_s = report.number, now_s
        self._sessions = {name: each for name, each in self._sessions.items() if now_s - each.seen_s <= SILENT_S}
        for key_id, told in report.keys.items():
            self._count(report, key_id, told, now_s)
            for resource, lease in told.leases.items():
                session.outstanding[key_id, resource] = max(0, lease.allowed - lease.spent)
        granted = {
            key_id: {
                resource: self._grant(session, key_id, resource, lease, limits[key_id], now_s)
                for resource, lease in told.leases.items()
                if _limits_of(resource, limits[key_id])
            }
            for key_id, told in report.keys.items()
            if key_id in limits
        }
        return LeaseAnswer(replicas=len(self._sessions), leases=granted)

    def take_facts(self) -> list[Fact]:
        """What is to be stored: everything told since this was last called."""
        facts, self._facts = list(self._facts.values()), {}
        return facts

    def put_back(self, facts: list[Fact]) -> None:
        """What could not be stored is to be stored later."""
        for fact in facts:
            self._remember(fact)

    def _remember(self, fact: Fact) -> None:
        place = (fact.session, fact.key_id, fact.at_s)
        other = self._facts.get(place)
        if other is not None:
            sums = max(fact.sums, other.sums, key=lambda used: (used.requests, used.tokens))
            fact = Fact(fact.session, fact.model, fact.key_id, fact.at_s, fact.more + other.more, sums)
        self._facts[place] = fact

    def _count(self, report: LeaseReport, key_id: str, told: KeyReport, now_s: float) -> None:
        sums = Used(told.requests, told.tokens_in, told.tokens_out)
        more = sums.since(self._told.get((report.session, key_id), Used()))
        if more == Used():
            return
        self._told[report.session, key_id] = sums
        use = self._of(key_id)
        use.requests.add(now_s, more.requests)
        use.tokens.add(now_s, more.tokens)
        use.day_tokens += more.tokens
        use.month_tokens += more.tokens
        self._remember(Fact(report.session, report.model, key_id, int(now_s), more, sums))

    def _grant(
        self, session: _Session, key_id: str, resource: str, told: Told, limits: Limits, now_s: float
    ) -> Granted:
        room = self._room(key_id, resource, limits, now_s)
        keep = int(room.limit * LEASED_SHARE / len(self._sessions))
        extra = max(0, told.allowed - told.spent - told.held)
        target = told.want + (keep if told.need else 0)
        more = max(0, min(target - extra, room.free))
        if extra + more < told.need:  # less than helps stays for others
            more = 0
        session.outstanding[key_id, resource] = max(0, told.allowed - told.spent) + more
        missing = max(1, told.need - extra - room.free)
        return Granted(
            allowed=told.allowed + more,
            keep=keep,
            remaining=max(0, room.free + extra),
            reset_s=room.reset_s,
            wait_s=self._wait_s(room, key_id, resource, missing, now_s),
            budget=room.budget if room.free + extra < max(1, told.need) else None,
        )

    def _room(self, key_id: str, resource: str, limits: Limits, now_s: float) -> _Room:
        use = self._of(key_id)
        leased = sum(each.outstanding.get((key_id, resource), 0) for each in self._sessions.values())
        if resource == CONCURRENT:
            limit = limits.concurrent_requests or 0
            return _Room(limit - leased, limit, HELD_ELSEWHERE_S, 0.0)
        window = use.requests if resource == REQUESTS else use.tokens
        window.forget_before(now_s)
        rooms = []
        minute = limits.requests_per_minute if resource == REQUESTS else limits.tokens_per_minute
        if minute:
            rooms.append(_Room(minute - window.total - leased, minute, 0.0, window.wait_s(now_s, window.total)))
        if resource == TOKENS:
            for name, budget, used in (
                ("day", limits.tokens_per_day, use.day_tokens),
                ("month", limits.tokens_per_month, use.month_tokens),
            ):
                if budget:
                    ends_s = _ends_s(name, now_s)
                    rooms.append(_Room(budget - used - leased, budget, ends_s, ends_s, name))
        return min(rooms, key=lambda room: room.free)

    def _wait_s(self, room: _Room, key_id: str, resource: str, missing: int, now_s: float) -> float:
        if resource == CONCURRENT or room.budget is not None:
            return room.wait_s
        use = self._of(key_id)
        window = use.requests if resource == REQUESTS else use.tokens
        return window.wait_s(now_s, missing) or HELD_ELSEWHERE_S

    def _turn_the_day(self, now_s: float) -> None:
        day = day_of(now_s)
        if day == self._day:
            return
        for use in self._use.values():
            use.day_tokens = 0
            if day[:7] != self._day[:7]:
                use.month_tokens = 0
        self._day = day

    def _of(self, key_id: str) -> _Use:
        return self._use.setdefault(key_id, _Use())


def _limits_of(resource: str, limits: Limits) -> bool:
    """Whether a resource is limited at all."""
    return {
        REQUESTS: bool(limits.requests_per_minute),
        TOKENS: limits.counts_tokens,
        CONCURRENT: bool(limits.concurrent_requests),
    }.get(resource, False)


def _ends_s(period: str, now_s: float) -> float:
    """How long the day or month of `now_s` (UTC) still lasts."""
    now = datetime.fromtimestamp(now_s, timezone.utc)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = day + timedelta(days=1) if period == "day" else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return (end - now).total_seconds()
