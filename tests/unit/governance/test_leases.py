"""Limits over several replicas: never let in too much, refused too early only within the share that is leased."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.governance.accounts import Accounts, Meter, Refused
from deployments.governance.lease_book import SILENT_S, LeaseBook
from deployments.governance.leases import LEASED_SHARE, LeaseAnswer, LeaseReport
from deployments.governance.window import Window
from orchestrator.store.limits import Limits
from orchestrator.store.usage import Fact, Remembered, Used

NOON = 1_800_014_400.0
NOTHING = Remembered({}, [], {}, {})
KEY = "key_a"


class World:
    """A front and its replicas in one process, on one clock; messages can be lost either way."""

    def __init__(self, replicas: int, limits: Limits, remembered: Remembered = NOTHING, lossy: float = 0) -> None:
        self.now_s = NOON
        self.limits = limits
        self.book = LeaseBook(remembered, self.now_s)
        self.away = False
        self.asked = 0
        self._lossy, self._chance = lossy, random.Random(1)  # noqa: S311 - the same losses every time
        self.replicas = [Accounts(f"m{n}", self._send, lambda: self.now_s) for n in range(replicas)]

    async def _send(self, report: LeaseReport) -> LeaseAnswer:
        self.asked += 1
        if self.away or self._chance.random() < self._lossy:
            raise OSError("lost on the way there")
        answer = self.book.exchange(report, {KEY: self.limits}, self.now_s)
        if self._chance.random() < self._lossy:
            raise OSError("lost on the way back")
        return answer

    async def admit(self, replica: int, prompt: int = 0, answer: int | None = 0) -> Meter | Refused:
        return await self.replicas[replica].admit(KEY, self.limits, prompt, answer)

    async def second(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        for each in self.replicas:
            await each.beat(lambda _key: self.limits)


def used_up(meter: Meter | Refused, prompt: int = 0, answer: int = 0) -> bool:
    """Run a request to its end; whether it was let in."""
    if isinstance(meter, Refused):
        return False
    meter.prompt(prompt)
    meter.answer(answer)
    meter.close()
    return True


@pytest.mark.parametrize("replicas", [1, 2, 5])
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
@pytest.mark.parametrize("skewed", [False, True])
def test_a_minute_lets_in_the_limit_whatever_the_replicas(replicas: int, limit: int, skewed: bool) -> None:
    """Never more in any 60 s; short of it by no more than what other replicas may hold unspent."""

    async def scenario() -> list[float]:
        world, admitted = World(replicas, Limits(requests_per_minute=limit)), []
        for step in range(4 * limit):
            replica = 0 if skewed and step % 10 else step % replicas
            if used_up(await world.admit(replica)):
                admitted.append(world.now_s)
            world.now_s += 100 / (4 * limit)
            if step % max(1, limit // 25) == 0:
                await world.second(0)
        return admitted

    admitted = asyncio.run(scenario())
    first_minute = [at_s for at_s in admitted if at_s < NOON + 60]
    assert limit * (1 - LEASED_SHARE) <= len(first_minute) <= limit
    for begin_s in admitted:
        assert sum(begin_s <= at_s < begin_s + 60 for at_s in admitted) <= limit


@pytest.mark.parametrize("lossy", [0.2, 0.6])
def test_lost_messages_let_nobody_in_too_much_and_count_nothing_twice(lossy: float) -> None:
    async def scenario() -> tuple[int, int]:
        world = World(3, Limits(requests_per_minute=200), lossy=lossy)
        admitted = 0
        for step in range(500):
            admitted += used_up(await world.admit(step % 3))
            if step % 20 == 0:
                await world.second(0.05)
        world._lossy = 0
        await world.second(0)
        return admitted, sum(fact.more.requests for fact in world.book.take_facts())

    admitted, counted = asyncio.run(scenario())
    assert 150 < admitted <= 200
    assert counted == admitted


@pytest.mark.parametrize("replicas", [1, 3])
def test_tokens_a_minute_hold_within_five_percent(replicas: int) -> None:
    """Answers shorter than asked for give back what they did not use."""

    async def scenario() -> int:
        world, used = World(replicas, Limits(tokens_per_minute=10_000)), 0
        for step in range(1000):
            if used_up(await world.admit(step % replicas, 20, 60), 20, 30):
                used += 50
            if step % 10 == 0:
                await world.second(0.1)
        return used

    assert 9_500 <= asyncio.run(scenario()) <= 10_000


def test_an_answer_of_unknown_length_is_taken_for_the_keys_usual_one() -> None:
    async def scenario() -> int:
        world, used = World(2, Limits(tokens_per_minute=40_000)), 0
        for step in range(60):  # learns
            used_up(await world.admit(step % 2, 10, None), 10, 100)
            used += 110
            await world.second(0.01)
        asked = [await world.admit(step % 2, 10, None) for step in range(1000)]
        return used + 110 * sum(used_up(meter, 10, 100) for meter in asked)

    assert 38_000 <= asyncio.run(scenario()) <= 42_000


def test_requests_at_a_time_are_counted_over_all_replicas() -> None:
    async def scenario() -> None:
        world = World(2, Limits(concurrent_requests=3))
        meters = [await world.admit(n % 2) for n in range(3)]
        assert all(isinstance(meter, Meter) for meter in meters)
        refused = await world.admit(0)
        assert isinstance(refused, Refused)
        assert (refused.resource, refused.wait_s) == ("concurrent", 1.0)
        assert isinstance(meters[1], Meter)
        meters[1].close()
        assert isinstance(await world.admit(0), Meter)

    asyncio.run(scenario())


def test_one_at_a_time_over_two_replicas_is_never_refused_to_one_who_waits() -> None:
    """The slot that one replica frees is the other's at once, though nobody waits for the news."""

    async def scenario() -> None:
        world = World(2, Limits(concurrent_requests=1))
        for step in range(20):
            assert used_up(await world.admit(step % 2))

    asyncio.run(scenario())


def test_what_runs_when_a_limit_is_set_counts_towards_it() -> None:
    async def scenario() -> None:
        world = World(1, Limits())
        meters = [await world.admit(0) for _ in range(3)]
        world.limits = Limits(concurrent_requests=4)
        assert isinstance(await world.admit(0), Meter)
        assert isinstance(await world.admit(0), Refused)
        assert len(meters) == 3

    asyncio.run(scenario())


def test_a_lease_that_suffices_asks_nobody() -> None:
    async def scenario() -> None:
        world = World(1, Limits(requests_per_minute=6000))
        await world.admit(0)
        asked = world.asked
        for _ in range(100):
            assert isinstance(await world.admit(0), Meter)
        assert world.asked == asked

    asyncio.run(scenario())


def test_a_key_without_limits_never_asks() -> None:
    async def scenario() -> int:
        world = World(1, Limits())
        assert used_up(await world.admit(0, 5, None), 5, 5)
        return world.asked

    assert asyncio.run(scenario()) == 0


@pytest.mark.parametrize(("period", "limits"), [
    ("day", Limits(tokens_per_day=1000)), ("month", Limits(tokens_per_month=1000)),
])  # fmt: skip
def test_a_budget_that_is_used_up_says_until_when(period: str, limits: Limits) -> None:
    async def scenario() -> Refused | Meter:
        world = World(2, limits)
        for step in range(10):
            assert used_up(await world.admit(step % 2, 50, 50), 50, 50)
            await world.second(70)
        refused = await world.admit(0, 50, 50)
        world.now_s += 86_400 * (1 if period == "day" else 31)
        assert isinstance(await world.admit(0, 50, 50), Meter)
        return refused

    refused = asyncio.run(scenario())
    assert isinstance(refused, Refused)
    assert refused.budget == period
    assert 0 < refused.wait_s <= 86_400 * (1 if period == "day" else 31)


def test_a_replica_that_fell_silent_holds_nothing() -> None:
    async def scenario() -> None:
        world = World(2, Limits(concurrent_requests=1))
        assert isinstance(await world.admit(0), Meter)
        assert isinstance(await world.admit(1), Refused)
        world.now_s += SILENT_S + 1
        assert isinstance(await world.admit(1), Meter)

    asyncio.run(scenario())


def test_use_outlives_the_front() -> None:
    """A front that begins anew knows the last minute and the day, and counts no sum a second time."""

    async def scenario() -> None:
        world = World(1, Limits(requests_per_minute=10, tokens_per_day=1000))
        for _ in range(6):
            assert used_up(await world.admit(0, 10, 10), 10, 10)
        await world.second()
        told, recent, tokens = {}, [], 0
        for fact in world.book.take_facts():
            told[fact.session, fact.key_id] = fact.sums
            recent.append((fact.key_id, fact.at_s, fact.more.requests, fact.more.tokens))
            tokens += fact.more.tokens
        assert tokens == 120
        world.book = LeaseBook(Remembered(told, recent, {KEY: tokens}, {KEY: tokens}), world.now_s)
        await world.second()
        assert world.book.take_facts() == []
        assert [used_up(await world.admit(0, 1, 1)) for _ in range(6)] == [True] * 4 + [False] * 2

    asyncio.run(scenario())


def test_while_the_front_is_away_each_replica_lets_in_its_part() -> None:
    async def scenario() -> int:
        world = World(2, Limits(requests_per_minute=120))
        for step in range(300):
            await world.admit(step % 2)
        await world.second()
        world.now_s += 61
        await world.second()
        await world.second()  # both know of both again
        world.away, admitted = True, 0
        for _ in range(60):
            await world.second()
            for step in range(4):
                admitted += used_up(await world.admit(step % 2))
        return admitted

    assert 100 <= asyncio.run(scenario()) <= 125


def test_a_report_that_was_overtaken_is_dropped() -> None:
    book = LeaseBook(NOTHING, NOON)
    newer = LeaseReport(session="a" * 32, model="m", number=2)
    assert book.exchange(newer, {}, NOON).known
    assert not book.exchange(newer.model_copy(update={"number": 1}), {}, NOON).known


def test_what_could_not_be_stored_is_stored_with_the_next() -> None:
    book = LeaseBook(NOTHING, NOON)
    facts = [Fact("s", "m", KEY, 5, Used(1, 2, 3), Used(1, 2, 3))]
    book.put_back(facts)
    book.put_back([Fact("s", "m", KEY, 5, Used(1, 1, 1), Used(2, 3, 4))])
    assert book.take_facts() == [Fact("s", "m", KEY, 5, Used(2, 3, 4), Used(2, 3, 4))]
    assert book.take_facts() == []


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(1, 9)), max_size=60), st.floats(200, 300))
def test_a_window_counts_a_whole_minute_and_hardly_more(uses: list[tuple[float, int]], now_s: float) -> None:
    window = Window()
    for at_s, amount in sorted(uses):
        window.add(at_s, amount)
    window.forget_before(now_s)
    assert window.total >= sum(amount for at_s, amount in uses if at_s > now_s - 60)
    assert window.total <= sum(amount for at_s, amount in uses if at_s > now_s - 62)
    wait_s = window.wait_s(now_s, window.total)
    window.forget_before(now_s + wait_s + 0.001)
    assert window.total == 0
