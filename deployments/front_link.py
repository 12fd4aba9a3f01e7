"""A process's line to the front: announcing a replica, reporting progress, learning the access rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import Any

import httpx

from deployments.governance.access import AccessPolicy
from deployments.governance.accounts import Accounts
from deployments.governance.leases import LeaseAnswer, LeaseReport
from orchestrator.store.limits import Limits
from orchestrator.store.secrets import control_token

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
# The engine's child processes find their way back by this variable: URL, deployment and replica, as JSON.
REPORT_ENV = "ORCHESTRATOR_REPORT"


@dataclass(frozen=True)
class Report:
    """Where progress of one replica is told."""

    control_url: str
    deployment: str
    replica: str

    @classmethod
    def from_environment(cls) -> Report | None:
        text = os.environ.get(REPORT_ENV)
        return cls(**json.loads(text)) if text else None

    def to_environment(self) -> None:
        """Let this process and its children find this report."""
        os.environ[REPORT_ENV] = json.dumps(asdict(self))

    def tell(self, kind: str, **detail: Any) -> None:
        """Report an event. Progress is a courtesy: that nobody listens must never hurt the engine."""
        event = {"deployment": self.deployment, "replica": self.replica, "kind": kind, "detail": detail}
        self._send("POST", "/events", json.dumps(event).encode())

    def withdraw(self) -> None:
        """Take the replica off the front at once, from whatever thread."""
        self._send("DELETE", f"/replicas/{self.replica}")

    def _send(self, method: str, path: str, body: bytes | None = None) -> None:
        request = urllib.request.Request(  # noqa: S310 - the URL is our own http:// control address
            f"{self.control_url}{path}",
            data=body,
            headers={"authorization": f"Bearer {control_token()}", "content-type": "application/json"},
            method=method,
        )
        with contextlib.suppress(OSError, HTTPException), _direct.open(request, timeout=2):
            pass


# Control traffic stays on the cluster's own network, whatever proxy the environment names.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def tell(kind: str, **detail: Any) -> None:
    """Report an event of the replica that this process belongs to, if it belongs to one."""
    if report := Report.from_environment():
        report.tell(kind, **detail)


@dataclass(frozen=True)
class Announcement:
    """What a replica says of itself: the model's names and where its own HTTP server listens."""

    deployment: str
    replica: str
    names: tuple[str, ...]
    host: str
    port: int
    auth: bool
    max_model_len: int
    created: int
    # Planned replicas: what each rank said of itself (`rank_map.ReportedRank`).
    ranks: tuple[dict[str, Any], ...] = ()
    # Emulated GPUs, and in most cases a small model in place of the one that is named.
    rehearsal: bool = False


class FrontLink:
    """Keeps a replica announced at the front, once a second, and hears the access rules in return; tells what keys
    use, and takes leases."""

    def __init__(
        self,
        control_url: str,
        announcement: Announcement,
        load: Callable[[], int],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._announcement = announcement
        self._load = load
        self._client = httpx.AsyncClient(
            base_url=control_url,
            headers={"authorization": f"Bearer {control_token()}"},
            timeout=5.0,
            transport=transport,
            trust_env=False,
        )
        self._task: asyncio.Task[None] | None = None
        self._reachable = True
        self.policy: AccessPolicy | None = None
        self.accounts = Accounts(announcement.deployment, self._tell_leases)

    async def start(self) -> None:
        """Announce now, then keep announcing."""
        await self._beat()
        self._task = asyncio.create_task(self._keep_announcing())

    async def _keep_announcing(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._beat()
            await self.accounts.beat(self._limits_of)

    async def _beat(self) -> None:
        """One heartbeat. A front that is away changes nothing here: the last rules stay in force."""
        body = {**asdict(self._announcement), "in_flight": self._load()}
        try:
            response = await self._client.post("/replicas", json=body)
            response.raise_for_status()
            self.policy = AccessPolicy.from_json(response.json()["access"])
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:  # the last three: a stranger answers
            if self._reachable:
                logger.warning("the front does not answer (%s); still trying", type(error).__name__)
            self._reachable = False
        else:
            self._reachable = True

    async def _tell_leases(self, report: LeaseReport) -> LeaseAnswer:
        """One exchange about limits. Raises what a broken line raises."""
        response = await self._client.post("/leases", json=report.model_dump())
        response.raise_for_status()
        answer = LeaseAnswer.model_validate_json(response.content)
        if not answer.known:
            raise ValueError("the front has heard a later report")
        return answer

    def _limits_of(self, key_id: str) -> Limits | None:
        return self.policy.limits_of(key_id) if self.policy is not None else None

    async def leave(self) -> None:
        """Take the replica off the front: no new request arrives once this returns."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(httpx.HTTPError):
            await self._client.delete(f"/replicas/{self._announcement.replica}")

    async def close(self) -> None:
        """The last requests are over: tell what they used, and hang up."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            await self.accounts.exchange()
        await self._client.aclose()


def now_s() -> int:
    """Unix time, as `created` of OpenAI's model objects wants it."""
    return int(time.time())
