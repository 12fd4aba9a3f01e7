"""A replica's line to the front: it announces, it learns, and a front that is away changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict

import httpx
import pytest

from deployments.front_link import FrontLink, Report
from deployments.governance.access import AccessPolicy, Caller
from orchestrator.store.keys import Secret
from orchestrator.store.secrets import control_token, hash_key
from tests.unit.front.test_registry import said

POLICY = AccessPolicy((Caller("key_k", (Secret(hash_key("k")),)),))


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")


def talk(handler: Callable[[httpx.Request], httpx.Response]) -> tuple[FrontLink, list[AccessPolicy | None]]:
    """Start and leave; the link, and the rules it held in between."""
    held: list[AccessPolicy | None] = []

    async def scenario() -> FrontLink:
        link = FrontLink("http://front", said(), lambda: 3, httpx.MockTransport(handler))
        await link.start()
        held.append(link.policy)
        await link.leave()
        return link

    return asyncio.run(scenario()), held


def test_it_announces_learns_and_leaves() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"access": POLICY.to_json()})

    _, held = talk(handle)
    assert held == [POLICY]
    assert [(request.method, request.url.path) for request in seen] == [
        ("POST", "/replicas"),
        ("DELETE", "/replicas/r1"),
    ]
    assert json.loads(seen[0].content) == json.loads(json.dumps({**asdict(said()), "in_flight": 3}))
    assert {request.headers["authorization"] for request in seen} == {f"Bearer {control_token()}"}


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.Response(401), httpx.Response(500),
        httpx.Response(200, text="<html>"), httpx.Response(200, json=[]), httpx.Response(200, json="x"),
        httpx.Response(200, json={"access": None}), httpx.Response(200, json={"access": {"callers": None}}),
    ],
)  # fmt: skip
def test_whatever_answers_in_its_place_hurts_nobody(answer: httpx.Response | Exception) -> None:
    """And nobody is let in by it."""

    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert talk(handle)[1] == [None]


def test_rules_that_were_learnt_stay_in_force_while_the_front_is_away() -> None:
    answers = iter([httpx.Response(200, json={"access": POLICY.to_json()}), httpx.Response(500)])

    async def scenario() -> AccessPolicy | None:
        link = FrontLink("http://front", said(), lambda: 0, httpx.MockTransport(lambda _request: next(answers)))
        await link._beat()
        await link._beat()
        return link.policy

    assert asyncio.run(scenario()) == POLICY


def test_a_report_reaches_the_engines_children_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {})
    assert Report.from_environment() is None
    report = Report("http://front", "m", "r1")
    report.to_environment()
    assert Report.from_environment() == report
