"""The public path, used as a client uses it: the first token, and a chat."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx

from orchestrator.deploy.clock import Clock
from orchestrator.errors import ApplyFailed

_NOT_YET = (404, 502, 503)


class PublicApi:
    """An OpenAI-compatible `base_url` with a key."""

    def __init__(
        self, base_url: str, key: str | None, transport: httpx.BaseTransport | None = None, clock: Clock = Clock()
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(300, connect=5)
        self._clock = clock
        self._client = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout, transport=transport, trust_env=False
        )

    def first_token(self, model: str, deadline_s: float, waiting: Callable[[], None]) -> None:
        """Return once a token has come back; raises `ApplyFailed` at `deadline_s` (monotonic) or on a refusal."""
        body = {"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        while True:
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise ApplyFailed(f"{model} is up but gave no token in time; see: orchestrator logs {model}")
            try:
                response = self._client.post("/completions", json=body, timeout=max(left_s, 1))
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code == 200:
                return
            if response is not None and response.status_code not in _NOT_YET:
                raise ApplyFailed(f"{model} refuses its first request: {error_message(response)}")
            waiting()
            self._clock.sleep(0.05)

    def chat(self, model: str, messages: Sequence[dict[str, str]], **options: Any) -> Iterator[str]:
        """The answer's text as it comes; raises `ApplyFailed` with the server's own words on a refusal."""
        body = {"model": model, "messages": list(messages), "stream": True, **options}
        try:
            with self._client.stream("POST", "/chat/completions", json=body) as response:
                if response.status_code != 200:
                    response.read()
                    raise ApplyFailed(error_message(response))
                yield from _deltas(response.iter_lines())
        except httpx.TransportError as error:
            raise ApplyFailed(f"the answer broke off ({type(error).__name__}); try: orchestrator status") from None


def _deltas(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        event = _event(line[6:])
        if error := event.get("error"):
            raise ApplyFailed(str(error.get("message", error) if isinstance(error, dict) else error))
        for choice in event.get("choices", []):
            if text := (choice.get("delta") or {}).get("content"):
                yield text


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise ApplyFailed(f"the answer holds what is no event: {data[:100]!r}")
    return event


def error_message(response: httpx.Response) -> str:
    """The message of an error in OpenAI's shape, or the status."""
    try:
        return f"{response.status_code}: {response.json()['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {response.status_code}"
