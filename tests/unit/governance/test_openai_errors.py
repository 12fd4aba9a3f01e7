"""Errors as OpenAI's clients parse them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deployments import openai_errors
from deployments.openai_errors import OpenAIError
from tests.unit.asgi import ask


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (openai_errors.missing_key(), 401, "authentication_error", "missing_api_key"),
        (openai_errors.wrong_key(), 401, "authentication_error", "invalid_api_key"),
        (openai_errors.unknown_model("m"), 404, "not_found_error", "model_not_found"),
        (openai_errors.bad_request("x"), 400, "invalid_request_error", "invalid_request"),
        (openai_errors.too_large(2**20), 413, "invalid_request_error", "request_too_large"),
        (openai_errors.unavailable("x", 5), 503, "server_error", "unavailable"),
        (OpenAIError(502, "x", "y"), 502, "server_error", "y"),
        (OpenAIError(405, "x", "y"), 405, "invalid_request_error", "y"),
        (OpenAIError(429, "x", "y"), 429, "rate_limit_error", "y"),
    ],
)
def test_every_error_has_openais_four_fields(error: OpenAIError, status: int, kind: str, code: str) -> None:
    assert error.status == status
    assert json.loads(error.body) == {
        "error": {"message": error.message, "type": kind, "param": None, "code": code}
    }  # fmt: skip


def test_what_a_client_sent_comes_back_short_and_as_ascii() -> None:
    error = openai_errors.unknown_model("\ud800é" + "x" * 10_000)
    assert error.body.isascii()
    assert len(error.body) < 500


def test_an_error_answers_a_request_by_itself() -> None:
    error = openai_errors.unavailable("Away.", 5)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await error.send(send)

    answer = ask(app)
    assert (answer.status, answer.body, answer.headers["retry-after"]) == (503, error.body, "5")
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(error.body)
