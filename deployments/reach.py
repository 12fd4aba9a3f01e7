"""Whether the nodes of a replica reach one another, found out before its ranks begin.

Ranks meet at ports that the system chooses, in both directions. Behind a firewall they would wait for one another for
minutes, and often not even begin; here a task on each other node connects to the replica's, and is connected to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Collection, Mapping
from typing import Any

from orchestrator.cluster.labels import node_name
from orchestrator.units import format_seconds

# A task starts within a second or two, on a busy node within ten; a connection takes milliseconds.
TASK_S = 25.0
CONNECT_S = 5.0
_ADVICE = "a firewall between the nodes? All ports must be open between them"


async def check_reach(names: Collection[str]) -> None:
    """Raises `RuntimeError` naming the first node of `names` that the replica's own cannot work with, within 25 s."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = str(ray.util.get_node_ip_address())
    others = _elsewhere(names, here, ray.nodes())
    if not others:
        return
    async with Meeting(here, {row["NodeManagerAddress"] for row in others.values()}) as meeting:

        def ask(node_id: str, address: str) -> Awaitable[str]:
            strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
            task = ray.remote(meet).options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
            return asyncio.wrap_future(task.remote(here, meeting.port, address).future())

        waiting = {name: ask(row["NodeID"], row["NodeManagerAddress"]) for name, row in others.items()}
        for name, problem in (await _answers(waiting, TASK_S)).items():
            if problem:
                raise RuntimeError(f"{name} cannot work with {here}: {problem} ({_ADVICE})")


def _elsewhere(names: Collection[str], here: str, rows: list[Any]) -> dict[str, Any]:
    """Ray's rows of the nodes meant that are on other machines; one that is gone is for Ray to tell."""
    found = {node_name(row.get("Labels"), row["NodeManagerAddress"]): row for row in rows if row["Alive"]}
    return {name: found[name] for name in names if name in found and found[name]["NodeManagerAddress"] != here}


async def _answers(waiting: Mapping[str, Awaitable[str]], timeout_s: float) -> dict[str, str]:
    """What each node said, empty where all is well."""
    tasks = {name: asyncio.ensure_future(answer) for name, answer in waiting.items()}
    await asyncio.wait(tasks.values(), timeout=timeout_s)
    return {name: _said(task, timeout_s) for name, task in tasks.items()}


def _said(task: asyncio.Future[str], timeout_s: float) -> str:
    if not task.done():
        task.cancel()
        return f"no task began there within {format_seconds(timeout_s)}"
    error = task.exception()
    return task.result() if error is None else f"its task ended: {str(error).strip().splitlines()[-1]}"


class Meeting:
    """The replica's side: a port to which other nodes connect, and are connected to in turn; strangers are not."""

    def __init__(self, host: str, others: Collection[str]) -> None:
        self._host, self._others = host, others
        self.port = 0

    async def __aenter__(self) -> Meeting:
        self._server = await asyncio.start_server(self._met, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line comes, the address and port to connect to; closing is the only answer."""
        with contextlib.suppress(OSError, ValueError, asyncio.TimeoutError):
            host, _, port = (await asyncio.wait_for(reader.readline(), CONNECT_S)).decode().strip().rpartition(":")
            if host in self._others:
                _, back = await asyncio.wait_for(asyncio.open_connection(host, int(port)), CONNECT_S)
                back.close()
        writer.close()


def meet(host: str, port: int, own_address: str) -> str:
    """Runs on another node: connect to `host`:`port` and be connected to. What is wrong, or nothing."""
    with socket.create_server((own_address, 0)) as listening:
        listening.settimeout(CONNECT_S)
        try:
            there = socket.create_connection((host, port), timeout=CONNECT_S)
        except OSError as error:
            return f"it does not reach {host}:{port} ({error.strerror or error})"
        own_port = listening.getsockname()[1]
        with there:
            there.sendall(f"{own_address}:{own_port}\n".encode())
            try:
                listening.accept()[0].close()
            except OSError:
                return f"{host} does not reach {own_address}:{own_port}"
    return ""
