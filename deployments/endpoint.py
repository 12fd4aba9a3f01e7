"""A replica's own HTTP server: uvicorn on the engine's event loop, nothing of Ray between client and engine."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn

from deployments.sockets import bound_socket


class InFlight:
    """ASGI middleware that counts the requests being answered."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        self.count += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.count -= 1


class Endpoint:
    """Serves `app` on `host`, on a port that the system chooses, from `start` to `stop`."""

    def __init__(self, app: Any, host: str) -> None:
        self._counter = InFlight(app)
        self._socket = bound_socket(host)
        self.host, self.port = self._socket.getsockname()[:2]
        config = uvicorn.Config(
            self._counter, access_log=False, log_level="warning", lifespan="off", http="httptools", ws="none",
            # Idle connections are the front's pool: closing them under it would cost it a retry.
            timeout_keep_alive=3600,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests being answered now."""
        return self._counter.count

    async def start(self) -> None:
        """Return once requests are accepted."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise RuntimeError("the replica's HTTP server ended while starting")
            await asyncio.sleep(0.01)

    async def stop(self, timeout_s: float) -> None:
        """Finish what was begun, at most for `timeout_s`, then close."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.in_flight and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        self._server.should_exit = True
        self._server.force_exit = self.in_flight > 0
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=5)
