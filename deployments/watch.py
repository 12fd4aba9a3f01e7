"""A replica's watch over its engine: it hears every process, and ends the whole group when one is dead or hangs.

Serve restarts a replica whose process is gone, with a fresh group of ranks; a group that has lost one rank never
gets well by itself. The front hears the cause first, and turns requests away until the next replica announces itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping

import psutil
from pydantic import ValidationError

from deployments.pulse import PULSE_ENV
from deployments.vitals import Beat, Limits, Vitals

LOOK_S = 0.5
MAX_LINE_BYTES = 4096
# A process that dies is heard of at once, others that die with it a moment later: wait to see who was first.
SETTLE_S = 0.5
# `ORCHESTRATOR_LIMITS={"endless_step_s": 300}` in a service's `env` bears with slower steps.
LIMITS_ENV = "ORCHESTRATOR_LIMITS"


class Watch:
    """Listens on `host` for the pulses of one replica's engine, in a thread of its own: starting an engine blocks."""

    def __init__(
        self,
        host: str,
        node: str,
        engine_version: str,
        give_up: Callable[[str], None],
        expected: Mapping[int, str] | None = None,
    ) -> None:
        self._host, self._give_up = host, give_up
        self._facts = {"node": node, "vllm": engine_version}
        self._secret = secrets.token_hex(16)
        self._vitals = Vitals(limits_from(os.environ.get(LIMITS_ENV)), expected or {})
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ready = threading.Event()

    def start(self) -> None:
        """Listen, and let the engine's processes find the way here through the environment."""
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True, name="watch").start()
        self._ready.wait(10)

    def serving(self) -> None:
        """The engine is up."""
        with self._lock:
            self._vitals.serving(time.monotonic())

    def end(self) -> None:
        """The engine is about to be stopped: nothing that happens to it is trouble any more."""
        self._ended.set()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._listen, self._host, 0, limit=MAX_LINE_BYTES)
        port = server.sockets[0].getsockname()[1]
        door = {"host": self._host, "port": port, "secret": self._secret, **self._facts}
        os.environ[PULSE_ENV] = json.dumps(door)
        self._ready.set()
        while not self._ended.is_set():
            await asyncio.sleep(LOOK_S)
            if self._trouble():
                await asyncio.sleep(SETTLE_S)
                if (what := self._trouble()) and not self._ended.is_set():
                    self._ended.set()
                    self._give_up(what)
        server.close()

    def _trouble(self) -> str | None:
        with self._lock:
            return self._vitals.trouble(time.monotonic())

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rank: int | None = None
        with contextlib.suppress(OSError, ValueError, ValidationError):
            secret = (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
            while secrets.compare_digest(secret, self._secret) and (line := await reader.readline()):
                beat = Beat.model_validate_json(line)
                rank = beat.rank
                with self._lock:
                    self._vitals.hear(beat, time.monotonic())
        if rank is not None:
            with self._lock:
                self._vitals.closed(rank, time.monotonic())
        writer.close()


def limits_from(text: str | None) -> Limits:
    """The limits in a JSON object; raises `ValueError` for names or values that are none."""
    if not text:
        return Limits()
    try:
        given = {name: float(value) for name, value in json.loads(text).items()}
        return Limits(**given)
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{LIMITS_ENV} is {text!r}; it must be an object such as {{'endless_step_s': 300}}") from error


def end_this_process() -> None:
    """End the replica and what it started, at once: nothing in it can be trusted to stop by itself any more."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)
