"""The front's inner door: replicas announce themselves, engines report progress, the operator asks. Token needed."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request

from deployments.front.events import EventLog
from deployments.front.messages import Heartbeat, Told
from deployments.front.registry import Registry
from deployments.governance.access import AccessPolicy
from deployments.governance.lease_book import LeaseBook
from deployments.governance.leases import LeaseAnswer, LeaseReport

MAX_WAIT_S = 30.0


def build_control(
    registry: Registry,
    events: EventLog,
    policy: Callable[[], AccessPolicy],
    leases: LeaseBook,
    renewed: Callable[[], Awaitable[None]],
    token: str,
) -> FastAPI:
    """The control application; `renewed()` puts changed routes in force."""
    news = asyncio.Condition()

    def known_caller(request: Request) -> None:
        said = request.headers.get("authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401)

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, dependencies=[Depends(known_caller)])

    @app.post("/replicas")
    async def announce(heartbeat: Heartbeat) -> dict[str, Any]:
        if registry.announce(heartbeat.announcement(), heartbeat.in_flight, time.monotonic()):
            await renewed()
        return {"access": policy().to_json()}

    @app.post("/leases")
    async def lease(report: LeaseReport) -> LeaseAnswer:
        limits = {caller.id: caller.limits for caller in policy().callers}
        return leases.exchange(report, limits, time.time())

    @app.delete("/replicas/{replica:path}")
    async def withdraw(replica: str) -> dict[str, bool]:
        if known := registry.withdraw(replica):
            await renewed()
        return {"withdrawn": known}

    @app.delete("/deployments/{name}")
    async def forget(name: str) -> dict[str, bool]:
        if known := registry.forget(name):
            await renewed()
        return {"forgotten": known}

    @app.post("/events")
    async def tell(told: Told) -> dict[str, int]:
        async with news:
            event = events.add(told.deployment, told.replica, told.kind, told.detail, time.time())
            news.notify_all()
        return {"sequence": event.sequence}

    @app.get("/events")
    async def listen(deployment: str, after: int, wait_s: float = 0) -> dict[str, Any]:
        async with news:
            if not events.since(deployment, after) and wait_s > 0:
                waiting = news.wait_for(lambda: bool(events.since(deployment, after)))
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(waiting, min(wait_s, MAX_WAIT_S))
            found = [asdict(event) for event in events.since(deployment, after)]
        return {"now_s": time.time(), "last_sequence": events.last_sequence, "events": found}

    @app.get("/directory")
    async def directory() -> dict[str, Any]:
        """What an ingress elsewhere needs: the models and who may call."""
        facts = ("name", "names", "auth", "created", "max_model_len", "rehearsal")
        known = [{fact: getattr(each, fact) for fact in facts} for each in registry.deployments.values()]
        return {"access": policy().to_json(), "deployments": known}

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return {"deployments": [asdict(known) for known in registry.deployments.values()]}

    return app
