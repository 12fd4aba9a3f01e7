"""`python -m deployments.front`: the front of one cluster, a process of its own that outlives Ray."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import signal
import sqlite3
import sys
import time
from pathlib import Path

import uvicorn

from deployments.front.control import build_control
from deployments.front.events import EventLog
from deployments.front.haproxy import HAProxy
from deployments.front.haproxy_config import INGRESS_SOCKET, FrontSettings
from deployments.front.ingress import build_ingress
from deployments.front.registry import Registry
from deployments.front.renewal import Renewal
from deployments.front.settings_file import FrontFile, read_front_file
from deployments.governance.access import Bounds
from deployments.governance.key_file import KeyFile
from deployments.governance.keyring import Keyring
from deployments.governance.lease_book import LeaseBook
from deployments.sockets import bound_socket, bound_unix_socket
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.store.database import FILE_NAME, STORE_ENV, file_url, open_database
from orchestrator.store.keys import KeyStore
from orchestrator.store.secrets import control_token
from orchestrator.store.usage import UsageStore

MAX_CONNECTIONS = 20_000
TICK_S = 0.5
# How much use a crash can lose of replicas that end with it; others tell it again.
FLUSH_S = 1.0
# HAProxy's restart after a crash: at once, then slower, so that a crash loop does not eat a core.
RESTART_DELAY_S = 1.0


def say(line: str) -> None:
    """A line for the front's log."""
    print(f"front: {line}", file=sys.stderr, flush=True)


class Front:
    """HAProxy, the ingress behind it and the control door, until told to stop."""

    def __init__(
        self,
        settings: FrontSettings,
        bounds: Bounds,
        control: tuple[str, int],
        key_file: Path,
        store_url: str,
        haproxy: bool,
    ) -> None:
        self._settings = settings
        database = open_database(store_url)
        self._usage = UsageStore(database)
        self._keys = Keyring(KeyStore(database, time.time), KeyFile(key_file, say), bounds, say)
        self._leases = LeaseBook(self._usage.remembered(time.time()), time.time())
        self._registry, self._events = Registry(), EventLog()
        self._routes, self._stopping = Renewal(), asyncio.Event()
        self._haproxy = HAProxy(settings) if haproxy else None
        ingress = build_ingress(self._registry, self._keys.policy)
        inner = build_control(
            self._registry, self._events, self._keys.policy, self._leases, self._routes.renewed, control_token()
        )
        self._servers = {
            _server(ingress): bound_unix_socket(INGRESS_SOCKET),
            _server(inner): bound_socket(*control),
        }

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._keys.refresh()
        serving = [asyncio.create_task(server._serve([listener])) for server, listener in self._servers.items()]
        keeping: list[asyncio.Task[None]] = []
        try:
            if self._haproxy is not None:
                await self._haproxy.start(self._registry)
                keeping.append(asyncio.create_task(self._keep_haproxy(self._haproxy)))
            keeping.append(asyncio.create_task(self._keep_routes()))
            keeping.append(asyncio.create_task(self._keep_store()))
            print(json.dumps({"listening": f"{self._settings.host}:{self._settings.port}"}), flush=True)
            await self._wait_for_end([*keeping, *serving])
        finally:
            for task in keeping:
                task.cancel()
            self._routes.end()
            if self._haproxy is not None:
                await self._haproxy.stop()
            for server in self._servers:
                server.should_exit = True
            await asyncio.gather(*serving, *keeping, return_exceptions=True)
            await self._store_usage()

    async def _wait_for_end(self, tasks: list[asyncio.Task[None]]) -> None:
        """Until a signal comes; a part that ends by itself ends the whole, with its own error."""
        stopping = asyncio.create_task(self._stopping.wait())
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if stopping not in done:
            stopping.cancel()
            for task in done:
                task.result()

    async def _keep_routes(self) -> None:
        """Renew HAProxy's routes when replicas come, go or fall silent."""
        trouble: str | None = None
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._routes.asked.wait(), TICK_S)
            if self._registry.expire(time.monotonic()) or self._routes.asked.is_set() or trouble:
                in_force, before = self._routes.begin(), trouble
                if (trouble := await self._renew_routes()) and trouble != before:
                    say(f"the routes stay as they were for now: {trouble}")
                in_force.set()

    async def _keep_store(self) -> None:
        """Take up keys that changed, and keep what was used. One connection, so that our own writes are no news."""
        stored_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            self._keys.refresh()
            if time.monotonic() - stored_s >= FLUSH_S:
                await asyncio.shield(self._store_usage())
                stored_s = time.monotonic()

    async def _store_usage(self) -> None:
        """Write what was told since the last time; what cannot be written now stays for the next."""
        facts = self._leases.take_facts()
        if not facts:
            return
        try:
            await asyncio.to_thread(self._usage.append, facts, time.time())
        except sqlite3.Error as error:
            self._leases.put_back(facts)
            say(f"usage is not stored for now: {error}")

    async def _renew_routes(self) -> str | None:
        """Hand HAProxy the routes. One that does not take them serves on by the old ones: what it says then."""
        try:
            if self._haproxy is not None:
                await self._haproxy.reload(self._registry)
        except ConfigError as error:
            return str(error)
        return None

    async def _keep_haproxy(self, haproxy: HAProxy) -> None:
        """Start HAProxy again if it dies."""
        while True:
            code = await haproxy.ended()
            say(f"HAProxy ended with code {code}; starting it again")
            await asyncio.sleep(RESTART_DELAY_S)
            await haproxy.start(self._registry)


def _server(app: object) -> uvicorn.Server:
    config = uvicorn.Config(
        app, access_log=False, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=2
    )
    return uvicorn.Server(config)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.front", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="state of this front")
    parser.add_argument("--host", default="127.0.0.1", help="public address")
    parser.add_argument("--port", type=int, default=8000, help="public port")
    parser.add_argument("--control-host", default="127.0.0.1", help="where replicas reach the front")
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--key-file", type=Path, required=True, help="the API key clients send")
    parser.add_argument("--store", help=f"the store of keys and usage; default: {FILE_NAME} beside the key file")
    parser.add_argument("--settings", type=Path, help="front.yaml, where there is one")
    parser.add_argument("--no-haproxy", action="store_true", help="only the control door: Serve's proxy is the way in")
    return parser.parse_args()


def most_connections() -> int:
    """As many clients as file descriptors allow: each takes one at both ends, and HAProxy itself some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if hard == resource.RLIM_INFINITY else max(100, min(MAX_CONNECTIONS, hard // 2 - 200))


def _settings(host: str, port: int, file: FrontFile) -> FrontSettings:
    return FrontSettings(
        host, port, most_connections(), file.idle_timeout_s, file.max_header_bytes, tuple(file.cors_origins)
    )


def main() -> None:
    """Run the front; an expected failure is one line and exit code 1."""
    arguments = _parse()
    os.umask(0o077)
    key_file = arguments.key_file.absolute()
    store_url = arguments.store or os.environ.get(STORE_ENV) or file_url(key_file.parent / FILE_NAME)
    settings_path = arguments.settings.absolute() if arguments.settings else None
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.folder)
    control = (arguments.control_host, arguments.control_port)

    async def run() -> None:
        file = read_front_file(settings_path)
        settings = _settings(arguments.host, arguments.port, file)
        await Front(settings, file.bounds, control, key_file, store_url, not arguments.no_haproxy).run()

    try:
        asyncio.run(run())
    except OrchestratorError as error:
        sys.exit(f"error: {error}")


main()
