"""Nodes that meet before ranks do, over real sockets: in both directions, or it is told which one fails."""

from __future__ import annotations

import asyncio
import socket

import pytest

from deployments import reach
from deployments.reach import Meeting, meet

pytestmark = [pytest.mark.serve, pytest.mark.timeout(60)]

HERE, THERE = "127.0.0.1", "127.0.0.2"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "CONNECT_S", 0.5)


def _met(others: set[str]) -> tuple[str, int]:
    async def run() -> tuple[str, int]:
        async with Meeting(HERE, others) as meeting:
            return await asyncio.to_thread(meet, HERE, meeting.port, THERE), meeting.port

    return asyncio.run(run())


def test_nodes_that_reach_one_another_have_nothing_to_say() -> None:
    assert _met({THERE})[0] == ""


def test_a_node_that_is_not_reached_in_turn_says_so() -> None:
    """As behind a firewall that lets it out and nobody in; here the replica's side does not know it."""
    problem, _ = _met(set())
    assert problem.startswith(f"{HERE} does not reach {THERE}:")


def test_a_node_that_cannot_reach_the_replicas_says_so() -> None:
    with socket.socket() as taken:
        taken.bind((HERE, 0))  # bound, and nobody listens
        port = taken.getsockname()[1]
        assert meet(HERE, port, THERE) == f"it does not reach {HERE}:{port} (Connection refused)"


@pytest.mark.parametrize("line", [b"", b"nonsense\n", b"127.0.0.2:port\n", b":::\n", b"\xff\xfe\n"])
def test_strangers_at_the_port_hurt_nothing(line: bytes) -> None:
    async def run() -> str:
        async with Meeting(HERE, {THERE}) as meeting:
            _, stranger = await asyncio.open_connection(HERE, meeting.port)
            stranger.write(line)
            stranger.close()
            return await asyncio.to_thread(meet, HERE, meeting.port, THERE)

    assert asyncio.run(run()) == ""
