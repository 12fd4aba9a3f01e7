"""Which nodes are asked whether they reach one another, and what is made of their answers."""

from __future__ import annotations

import asyncio
from typing import Any

from deployments.reach import _answers, _elsewhere


def row(address: str, name: str = "", alive: bool = True) -> dict[str, Any]:
    return {"NodeManagerAddress": address, "Labels": {"orchestrator/host": name} if name else {}, "Alive": alive}


def test_nodes_on_this_machine_are_not_asked_nor_such_as_are_gone_or_not_meant() -> None:
    rows = [row("10.0.0.1", "a"), row("10.0.0.1", "b"), row("10.0.0.2"), row("10.0.0.3"), row("10.0.0.4", alive=False)]
    assert _elsewhere({"a", "b", "10.0.0.2", "10.0.0.4"}, "10.0.0.1", rows) == {"10.0.0.2": rows[2]}


def test_a_node_that_does_not_answer_is_told_beside_those_that_do() -> None:
    async def well() -> str:
        return ""

    async def ill() -> str:
        raise RuntimeError("a traceback\nthe cause")

    async def run() -> dict[str, str]:
        silent: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await _answers({"a": well(), "b": silent, "c": ill()}, 0.05)

    assert asyncio.run(run()) == {"a": "", "b": "no task began there within 0.05 s", "c": "its task ended: the cause"}
