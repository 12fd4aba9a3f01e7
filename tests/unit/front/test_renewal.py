"""Waiting for routes: until a renewal that began afterwards is over, and for ever only while there is hope."""

from __future__ import annotations

import asyncio

from deployments.front.renewal import Renewal


def test_who_asks_during_a_renewal_waits_for_the_next() -> None:
    async def scenario() -> list[bool]:
        routes = Renewal()
        early = asyncio.create_task(routes.renewed())
        await asyncio.sleep(0)
        first = routes.begin()
        late = asyncio.create_task(routes.renewed())
        await asyncio.sleep(0)
        first.set()
        await early
        between = late.done()
        assert routes.asked.is_set()
        routes.begin().set()
        await late
        return [between, routes.asked.is_set()]

    assert asyncio.run(scenario()) == [False, False]


def test_after_the_end_nobody_waits() -> None:
    async def scenario() -> None:
        routes = Renewal()
        waiting = asyncio.create_task(routes.renewed())
        await asyncio.sleep(0)
        routes.end()
        await waiting
        await routes.renewed()

    asyncio.run(scenario())
