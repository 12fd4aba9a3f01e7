"""A replica without an engine: the real endpoint, key gate and line to the front around a dozen lines of answers.

    python -m tests.serve.fake_replica CONTROL_URL DEPLOYMENT REPLICA [--alias NAME] [--no-auth | --bare] [--interval S]

Its tokens are chunks of an answer, and words of a prompt. Every answer carries the replica's name as
`system_fingerprint`. `max_tokens` chunks come `interval` seconds apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import Any

from deployments.endpoint import Endpoint
from deployments.front_link import Announcement, FrontLink, now_s
from deployments.governance.access import ApiKeyGate
from deployments.governance.limit_gate import METER, LimitGate
from deployments.governance.metering import check_prompt


class FakeEngine:
    """Answers as vLLM's app does, as far as a client can tell; any other path says that it was reached."""

    def __init__(self, replica: str, interval_s: float) -> None:
        self._replica = replica
        self._interval_s = interval_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        answering = asyncio.create_task(self._answer(scope, await _read(receive), send))
        hung_up = asyncio.create_task(receive())
        await asyncio.wait({answering, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        answering.cancel()
        hung_up.cancel()

    async def _answer(self, scope: Any, body: bytes, send: Any) -> None:
        if scope["path"] == "/health":
            await _answer(send, 200, {})
        elif scope["path"] == "/v1/chat/completions":
            await self._chat(send, body)
        elif scope["path"] == "/v1/embeddings":
            _read_prompt(str(json.loads(body).get("input", "")))
            await _answer(send, 200, {"reached": scope["path"], "replica": self._replica})
        else:
            await _answer(send, 200, {"reached": scope["path"], "replica": self._replica})

    async def _chat(self, send: Any, body: bytes) -> None:
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            await _answer(send, 400, {"error": {"message": "not JSON", "type": "BadRequestError", "code": 400}})
            return
        tokens = int(asked.get("max_tokens") or 1)
        meter = METER.get()
        try:
            _read_prompt(str(asked.get("messages", "")))
        except ValueError as error:
            await _answer(send, 400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})
            return
        if meter is not None and meter.max_answer_tokens is not None:
            tokens = min(tokens, meter.max_answer_tokens)
        if asked.get("stream"):
            await self._stream(send, asked["model"], tokens)
        else:
            await asyncio.sleep(self._interval_s * tokens)
            _wrote(tokens)
            message = {"role": "assistant", "content": f"{len(body)} bytes"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await _answer(send, 200, {**self._head(asked["model"], "chat.completion"), "choices": [choice]})

    async def _stream(self, send: Any, model: str, tokens: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(tokens):
            choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
            event = {**self._head(model, "chat.completion.chunk"), "choices": [choice]}
            _wrote(1)
            await send({"type": "http.response.body", "body": _event(json.dumps(event)), "more_body": True})
            await asyncio.sleep(self._interval_s)
        await send({"type": "http.response.body", "body": _event("[DONE]")})

    def _head(self, model: str, kind: str) -> dict[str, Any]:
        return {"id": "fake", "object": kind, "created": 0, "model": model, "system_fingerprint": self._replica}


def _read_prompt(text: str) -> None:
    """As the engine's metering does: count, and refuse what is too long for the key."""
    meter, words = METER.get(), text.split()
    if meter is not None:
        check_prompt(meter, {"prompt_token_ids": words})
        meter.prompt(len(words))


def _wrote(tokens: int) -> None:
    if (meter := METER.get()) is not None:
        meter.answer(tokens)


def _event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def _read(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _answer(send: Any, status: int, document: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


async def serve(arguments: argparse.Namespace) -> None:
    """Announce, answer until SIGTERM, then leave as a real replica does."""
    names = (arguments.deployment, *arguments.alias)
    app: Any = FakeEngine(arguments.replica, arguments.interval)
    if not arguments.bare:
        app = LimitGate(app, lambda: link.policy, lambda: link.accounts)
    if not (arguments.no_auth or arguments.bare):
        app = ApiKeyGate(app, lambda: link.policy, names)
    endpoint = Endpoint(app, "127.0.0.1")
    said = Announcement(
        arguments.deployment, arguments.replica, names, endpoint.host, endpoint.port,
        auth=not (arguments.no_auth or arguments.bare), max_model_len=2048, created=now_s(),
    )  # fmt: skip
    link = FrontLink(arguments.control_url, said, lambda: endpoint.in_flight)
    await endpoint.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await link.start()
    print("announced", flush=True)
    await stopping.wait()
    await link.leave()
    await endpoint.stop(10)
    await link.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("control_url")
    parser.add_argument("deployment")
    parser.add_argument("replica")
    parser.add_argument("--alias", action="append", default=[])
    parser.add_argument("--no-auth", action="store_true")
    parser.add_argument("--bare", action="store_true", help="nothing of governance before the engine")
    parser.add_argument("--interval", type=float, default=0.02)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
