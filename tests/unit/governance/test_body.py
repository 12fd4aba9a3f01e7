"""Bodies: read within bounds, measured without trusting them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.governance.access import Bounds
from deployments.governance.body import Asked, read_body, replayed, too_deep
from deployments.openai_errors import OpenAIError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}\\"a\u20ac'),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(JSON, st.integers(1, 6), st.booleans())
def test_depth_is_that_of_the_document_whatever_stands_in_its_strings(value: Any, limit: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert too_deep(body, limit) == (depth_of(value) > limit)


@given(st.binary(max_size=200))
def test_any_bytes_are_measured_without_an_exception(body: bytes) -> None:
    too_deep(body, 3)
    Asked.of(body)


@pytest.mark.parametrize(("said", "answer", "choices"), [
    ({}, None, 1), ({"max_tokens": 5}, 5, 1), ({"max_completion_tokens": 7, "max_tokens": 5}, 7, 1),
    ({"max_output_tokens": 3, "n": 4}, 3, 4), ({"max_tokens": True}, None, 1), ({"max_tokens": -5}, 0, 1),
    ({"max_tokens": 1.5}, None, 1), ({"n": 10**9}, None, 1), ({"n": 0}, None, 1),
])  # fmt: skip
def test_what_a_request_asks_for(said: dict[str, Any], answer: int | None, choices: int) -> None:
    body = json.dumps({"prompt": "x" * 400, **said}).encode()
    assert Asked.of(body) == Asked(len(body) // 4, answer, choices)


def read(messages: list[dict[str, Any]], bounds: Bounds) -> tuple[Any, list[Any]]:
    left = list(messages)

    async def receive() -> Any:
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    async def scenario() -> Any:
        body = await read_body(receive, bounds)
        if isinstance(body, bytes):
            left.append({"type": "http.disconnect"})
            again = replayed(body, receive)
            return body, [await again(), await again()]
        return body, []

    found: tuple[Any, list[Any]] = asyncio.run(scenario())
    return found


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_parts_is_handed_on_whole_and_then_what_comes() -> None:
    body, again = read([part(b"ab", True), part(b"", True), part(b"c")], Bounds())
    assert body == b"abc"
    assert again == [part(b"abc"), {"type": "http.disconnect"}]


def test_a_body_beyond_its_bounds_is_refused_before_it_is_whole() -> None:
    long, _ = read([part(b"a" * 6, True), part(b"a" * 6, True)], Bounds(max_body_bytes=10))
    assert isinstance(long, OpenAIError)
    assert long.status == 413
    slow, _ = read([part(b"a", True)], Bounds(body_timeout_s=0.01))
    assert isinstance(slow, OpenAIError)
    assert slow.status == 408
    assert read([part(b"a", True), {"type": "http.disconnect"}], Bounds())[0] is None
