"""An ASGI application driven by hand: one request in, one answer out, no socket."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    closed_with: int | None = None


def ask(app: Any, path: str = "/", headers: list[tuple[bytes, bytes]] | None = None, kind: str = "http") -> Answer:
    """One GET request (or a websocket, or a lifespan) to `app`."""
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            answer.body += message["body"]
        elif message["type"] == "websocket.close":
            answer.closed_with = message["code"]

    scope = {"type": kind, "method": "GET", "path": path, "headers": headers or []}
    asyncio.run(app(scope, receive, send))
    return answer
