"""Request bodies read whole, within bounds, and handed on as if they had just come."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

from deployments import openai_errors
from deployments.deadline import timeout
from deployments.governance.access import Bounds
from deployments.openai_errors import OpenAIError

# Brackets that stand outside of strings; a string is one match, escapes included.
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
# What one token is in bytes of a request, roughly: English text in byte pair encodings.
# https://help.openai.com/en/articles/4936856 gives four characters.
BYTES_A_TOKEN = 4
_ANSWER_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_MOST_CHOICES = 1000


class _Gone(Exception):
    """The client hung up before its request was whole."""


async def read_body(receive: Any, bounds: Bounds) -> bytes | OpenAIError | None:
    """The body, the error to answer with, or None when the client hung up."""
    try:
        async with timeout(bounds.body_timeout_s):
            return await _read(receive, bounds.max_body_bytes)
    except asyncio.TimeoutError:
        return openai_errors.slow_request()
    except _Gone:
        return None


async def _read(receive: Any, limit_bytes: int) -> bytes | OpenAIError:
    message = await receive()
    body, more = message.get("body", b""), message.get("more_body", False)
    parts = [body]
    size = len(body)
    while True:
        if message["type"] == "http.disconnect":
            raise _Gone
        if size > limit_bytes:
            return openai_errors.too_large(limit_bytes)
        if not more:
            return b"".join(parts) if len(parts) > 1 else bytes(parts[0])
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)


def replayed(body: bytes, receive: Any) -> Any:
    """An ASGI `receive` that gives `body` first, and then what comes."""
    given = False

    async def replay() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def too_deep(body: bytes, limit: int) -> bool:
    """Whether JSON nests deeper than `limit`. What is no JSON is somebody else's to refuse."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for match in _BRACKETS.finditer(body):
        token = body[match.start()]
        if token in b"[{":
            depth += 1
            if depth > limit:
                return True
        elif token in b"]}":
            depth -= 1
    return False


@dataclass(frozen=True)
class Asked:
    """The tokens a request may use: of its prompt by its length in bytes, of its answers None where it does not say."""

    prompt: int
    answer: int | None
    choices: int = 1

    @classmethod
    def of(cls, body: bytes) -> Asked:
        """What a body says; one that is no JSON object says nothing, and the engine refuses it."""
        try:
            document: Any = json.loads(body)
        except (ValueError, RecursionError):
            return cls(0, 0)
        if not isinstance(document, dict):
            return cls(0, 0)
        said = [document[name] for name in _ANSWER_FIELDS if type(document.get(name)) is int]
        choices = document.get("n")
        several = choices if type(choices) is int and 1 <= choices <= _MOST_CHOICES else 1
        return cls(len(body) // BYTES_A_TOKEN, max(0, said[0]) if said else None, several)
