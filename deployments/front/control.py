"""The front's inner door: replicas announce themselves, engines report progress, the operator asks. Token needed."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from deployments.front.events import EventLog
from deployments.front.registry import Registry
from deployments.front_link import Announcement
from deployments.governance.access import AccessPolicy

MAX_WAIT_S = 30.0
# What a line of HAProxy's map can hold: no spaces, no comment.
Name = Annotated[str, Field(max_length=255, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./:@+-]*$")]


class Heartbeat(BaseModel):
    """A replica's announcement and how much it is doing."""

    model_config = ConfigDict(extra="forbid")

    deployment: Name
    replica: str = Field(max_length=200, pattern=r"^[A-Za-z0-9_.-]+$")
    names: tuple[Name, ...] = Field(min_length=1)
    host: str = Field(max_length=255, pattern=r"^[A-Za-z0-9_.:-]+$")
    port: int = Field(ge=1, le=65535)
    auth: bool
    max_model_len: int
    created: int
    in_flight: int

    def announcement(self) -> Announcement:
        return Announcement(**self.model_dump(exclude={"in_flight"}))


class Told(BaseModel):
    """One event of an engine that starts."""

    model_config = ConfigDict(extra="forbid")

    deployment: str = Field(max_length=63)
    replica: str = Field(max_length=200)
    kind: str = Field(max_length=63)
    detail: dict[str, Any] = {}


def build_control(
    registry: Registry,
    events: EventLog,
    policy: Callable[[], AccessPolicy],
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
        facts = ("name", "names", "auth", "created", "max_model_len")
        known = [{fact: getattr(each, fact) for fact in facts} for each in registry.deployments.values()]
        return {"access": policy().to_json(), "deployments": known}

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return {"deployments": [asdict(known) for known in registry.deployments.values()]}

    return app
