"""A replica's side of limits: what each key has spent here, and the leases it spends from."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from deployments.governance.leases import (
    CONCURRENT,
    REQUESTS,
    RESOURCES,
    TOKENS,
    Granted,
    KeyReport,
    LeaseAnswer,
    LeaseReport,
    Told,
)
from orchestrator.store.limits import Limits

logger = logging.getLogger(__name__)

# The longest that a request waits for a lease before it is refused. Nothing that has begun to answer ever waits.
ASK_S = 0.5
# A slot that another replica has just freed is on its way to the front: ask again so often before refusing.
ASKS, ASK_AGAIN_S = 4, 0.03
# What is freed is told at once, but not more often than this.
TELL_EVERY_S = 0.02
# From then on a replica lets in its part of the limits by itself, until the front is back.
AWAY_S = 3.0
# A key that nobody used for so long gives its leases back.
IDLE_S = 60.0
# What an answer whose length nobody gave is taken for until a key's own answers tell better, in tokens.
UNKNOWN_ANSWER_TOKENS = 256
_NEW_ANSWER_WEIGHT = 0.2


@dataclass
class Lease:
    """One resource of one key here. `spent` + `held` may go up to `allowed`."""

    spent: int = 0
    held: int = 0
    allowed: int = 0
    keep: int = 0
    pending: int = 0
    need: int = 0
    away_credit: float = 0.0
    answer: Granted | None = None
    at_answer: int = 0

    @property
    def taken(self) -> int:
        return self.spent + self.held

    @property
    def remaining(self) -> int:
        """What is left for all, as far as it is known here."""
        return 0 if self.answer is None else max(0, self.answer.remaining - (self.taken - self.at_answer))

    def fits(self, cost: int) -> bool:
        return self.taken + cost <= self.allowed

    def told(self) -> Told:
        """The report of this lease: what is not needed is given back, and what runs beyond it is owned up to."""
        self.allowed = self.taken + max(0, min(self.allowed - self.taken, max(self.keep, self.pending)))
        low = self.answer is not None and self.allowed - self.taken < self.keep // 2
        want = self.pending or (self.keep if low else 0)
        return Told(spent=self.spent, held=self.held, allowed=self.allowed, want=want, need=self.need)

    def take(self, granted: Granted) -> None:
        self.allowed = max(self.allowed, granted.allowed)
        self.keep, self.answer, self.at_answer, self.away_credit = granted.keep, granted, self.taken, 0.0


@dataclass
class Account:
    """One key here."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    usual_answer: float = UNKNOWN_ANSWER_TOKENS
    used_s: float = 0.0
    heard: KeyReport | None = None
    leases: dict[str, Lease] = field(default_factory=lambda: {resource: Lease() for resource in RESOURCES})

    def report(self, now_s: float) -> KeyReport | None:
        """What to tell the front, None where it knows all. A key that is not used holds nothing back from others."""
        idle = now_s - self.used_s > IDLE_S
        if idle:
            for lease in self.leases.values():
                lease.keep = 0
        leases = {resource: lease.told() for resource, lease in self.leases.items()}
        told = KeyReport(requests=self.requests, tokens_in=self.tokens_in, tokens_out=self.tokens_out, leases=leases)
        return None if idle and told == self.heard else told


@dataclass(frozen=True)
class Refused:
    """Why a request is not let in, and for how long. `budget`: the budget that is used up, if it is one."""

    resource: str
    wait_s: float
    budget: str | None = None


class Meter:
    """One request that runs: the tokens of prompt and answer that it was promised, and what it has used."""

    def __init__(self, account: Account, limits: Limits, promised: tuple[int, int], freed: Callable[[], None]) -> None:
        self.max_prompt_tokens, self.max_answer_tokens = limits.max_prompt_tokens, limits.max_answer_tokens
        self._account, self._freed = account, freed
        self._prompt_left, self._answer_left = promised
        self._answered = 0
        leases = account.leases
        leases[REQUESTS].spent += 1
        leases[CONCURRENT].held += 1
        leases[TOKENS].held += sum(promised)
        account.requests += 1

    def prompt(self, tokens: int) -> None:
        """The engine has read so many tokens of a prompt."""
        self._account.tokens_in += tokens
        tokens_lease = self._account.leases[TOKENS]
        tokens_lease.spent += tokens
        tokens_lease.held -= self._prompt_left
        self._prompt_left = 0

    def answer(self, tokens: int) -> None:
        """The engine has written so many more tokens."""
        self._account.tokens_out += tokens
        self._answered += tokens
        tokens_lease = self._account.leases[TOKENS]
        tokens_lease.spent += tokens
        covered = min(tokens, self._answer_left)
        self._answer_left -= covered
        tokens_lease.held -= covered

    def close(self) -> None:
        """The request is over: what it did not use is free again."""
        self._account.leases[TOKENS].held -= self._prompt_left + self._answer_left
        self._account.leases[CONCURRENT].held -= 1
        self._prompt_left = self._answer_left = 0
        if self._answered:
            self._account.usual_answer += _NEW_ANSWER_WEIGHT * (self._answered - self._account.usual_answer)
        self._freed()


class Accounts:
    """All keys at one replica. `send` carries a report to the front and may raise whatever it likes."""

    def __init__(
        self,
        model: str,
        send: Callable[[LeaseReport], Awaitable[LeaseAnswer]],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._send, self._monotonic_s = model, send, monotonic_s
        self._session = uuid.uuid4().hex
        self._number = 0
        self._replicas = 1
        self._begun = 0
        self._one_at_a_time = asyncio.Lock()
        self._heard_s = self._credited_s = monotonic_s()
        self._untold = False
        self._telling: asyncio.Task[None] | None = None
        self._accounts: dict[str, Account] = {}

    def account(self, key_id: str) -> Account:
        return self._accounts.setdefault(key_id, Account())

    async def admit(self, key_id: str, limits: Limits, prompt: int, answer: int | None) -> Meter | Refused:
        """Let a request in, or say why not. `prompt` and `answer` are the tokens it may use, None where nobody said.

        Returns without waiting where the leases here suffice; else the front is asked, for at most `ASK_S`.
        """
        account = self.account(key_id)
        account.used_s = self._monotonic_s()
        if answer is None:
            answer = int(account.usual_answer)
            most = limits.most_tokens
            answer = answer if most is None else max(1, min(answer, most - prompt))
        costs = _costs(limits, prompt + answer)
        if (short := _short(account, costs)) is not None:
            with contextlib.suppress(asyncio.TimeoutError), _waiting(account, costs):
                await asyncio.wait_for(self._ask(account, costs), ASK_S)
            short = _short(account, costs)
        if short is None:
            promised = (prompt, answer) if limits.counts_tokens else (0, 0)
            return Meter(account, limits, promised, self._free_up if limits.leased else _nothing)
        told = account.leases[short].answer
        return Refused(short, 1.0, None) if told is None else Refused(short, told.wait_s, told.budget)

    async def exchange(self) -> None:
        """Tell the front and take its answer. Callers at one time share an exchange that begins after their call."""
        begun = self._begun
        async with self._one_at_a_time:
            if self._begun > begun:
                return
            self._begun += 1
            self._number += 1
            now_s = self._monotonic_s()
            keys = {key_id: told for key_id, one in self._accounts.items() if (told := one.report(now_s)) is not None}
            if not self._accounts:  # nobody to share anything with yet
                return
            answer = await self._send(
                LeaseReport(session=self._session, model=self._model, number=self._number, keys=keys)
            )
        for key_id, told in keys.items():
            self.account(key_id).heard = told
        self._heard_s = self._credited_s = self._monotonic_s()
        self._replicas = answer.replicas
        for key_id, leases in answer.leases.items():
            for resource, granted in leases.items():
                self.account(key_id).leases[resource].take(granted)

    async def beat(self, limits: Callable[[str], Limits | None]) -> None:
        """Once a second. Where the front stays away, this replica's part of the limits is let in without it.

        `limits` are those of a key in force.
        """
        try:
            await self.exchange()
        except Exception as error:  # noqa: BLE001 - whatever a line can break by; the heartbeat says so aloud
            logger.debug("no leases from the front (%s)", type(error).__name__)
            self._go_it_alone(limits)

    def _go_it_alone(self, limits: Callable[[str], Limits | None]) -> None:
        now_s = self._monotonic_s()
        passed_s, self._credited_s = now_s - self._credited_s, now_s
        if now_s - self._heard_s < AWAY_S:
            return
        for key_id, account in self._accounts.items():
            known = limits(key_id)
            if known is None:
                continue
            for resource, per_minute in (
                (REQUESTS, known.requests_per_minute),
                (TOKENS, known.tokens_per_minute),
            ):
                lease = account.leases[resource]
                spent_up = lease.answer is not None and lease.answer.budget is not None
                if per_minute and not spent_up:
                    lease.away_credit += per_minute / 60 / self._replicas * passed_s
                    whole = int(lease.away_credit)
                    lease.away_credit -= whole
                    lease.allowed = max(lease.allowed, min(lease.allowed + whole, lease.taken + per_minute))
            if known.concurrent_requests:
                lease = account.leases[CONCURRENT]
                lease.allowed = max(lease.allowed, known.concurrent_requests // self._replicas, 1)

    async def _ask(self, account: Account, costs: dict[str, int]) -> None:
        for again in range(ASKS):
            if again:
                await asyncio.sleep(ASK_AGAIN_S)
            try:
                await self.exchange()
            except Exception as error:  # noqa: BLE001 - as in `beat`
                logger.debug("no leases from the front (%s)", type(error).__name__)
                return
            short = _short(account, costs)
            if short is None or short != CONCURRENT:
                return

    def _free_up(self) -> None:
        """Something is free again that others may be waiting for: tell soon, and meanwhile go on."""
        self._untold = True
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._untold:
            self._untold = False
            with contextlib.suppress(Exception):
                await self.exchange()
            await asyncio.sleep(TELL_EVERY_S)


def _nothing() -> None:
    """Nobody waits for what this request frees."""


def _costs(limits: Limits, tokens: int) -> dict[str, int]:
    """What a request takes of each resource that is limited."""
    costs = {}
    if limits.requests_per_minute:
        costs[REQUESTS] = 1
    if limits.counts_tokens:
        costs[TOKENS] = tokens
    if limits.concurrent_requests:
        costs[CONCURRENT] = 1
    return costs


def _short(account: Account, costs: dict[str, int]) -> str | None:
    """The first resource of which there is too little here."""
    return next((resource for resource, cost in costs.items() if not account.leases[resource].fits(cost)), None)


@contextlib.contextmanager
def _waiting(account: Account, costs: dict[str, int]) -> Iterator[None]:
    """While a request waits, its costs are asked for."""
    for resource, cost in costs.items():
        lease = account.leases[resource]
        lease.pending += cost
        lease.need = min(lease.need, cost) if lease.need else cost
    try:
        yield
    finally:
        for resource, cost in costs.items():
            lease = account.leases[resource]
            lease.pending -= cost
            if not lease.pending:
                lease.need = 0
