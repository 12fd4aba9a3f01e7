"""The OpenAI-compatible FastAPI ingress beside HAProxy: model lists, refusals, and bodies too long for a buffer."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deployments import openai_errors
from deployments.front.haproxy_config import ENGINE_PATHS, MAX_BODY_BYTES, RETRY_AFTER_S
from deployments.front.registry import Deployment, Registry
from deployments.governance.access import AccessPolicy, Caller
from deployments.openai_errors import OpenAIError

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


def respond(error: OpenAIError) -> Response:
    """A refusal as a Starlette response."""
    return Response(error.body, error.status, error.headers, media_type="application/json")


def build_ingress(registry: Registry, policy: Callable[[], AccessPolicy]) -> FastAPI:
    """The application; `policy()` gives the access rules in force."""
    app = FastAPI(title="OpenAI-compatible ingress", openapi_url=None, docs_url=None, redoc_url=None)
    # Replicas are on loopback or the cluster's own network; no proxy of the environment belongs between.
    client = httpx.AsyncClient(timeout=httpx.Timeout(300, connect=5), trust_env=False)
    turn = itertools.count()

    def caller_of(request: Request) -> Caller | OpenAIError:
        return policy().identify(request.scope["headers"], time.time())

    def refusal_of(request: Request) -> OpenAIError | None:
        caller = caller_of(request)
        return caller if isinstance(caller, OpenAIError) else None

    def open_models() -> list[Deployment]:
        return [known for known in registry.deployments.values() if not known.auth]

    def find(model: str, request: Request) -> Deployment | OpenAIError:
        """The deployment that answers to `model`, if this caller may use it.

        As on the direct way, where the replica itself refuses: a wrong key is told so before anything else, unless
        there are models that need none.
        """
        known, caller = registry.find(model), caller_of(request)
        refusal = caller if isinstance(caller, OpenAIError) else None
        if refusal is not None and (known is None or known.auth) and (known is not None or not open_models()):
            return refusal
        if known is not None and known.auth and isinstance(caller, Caller) and not caller.may_use(known.names):
            return openai_errors.model_not_allowed(model)
        return known or openai_errors.unknown_model(model)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        caller = caller_of(request)
        if isinstance(caller, OpenAIError):
            listed = open_models()
            if not listed:
                return respond(caller)
        else:
            listed = [each for each in registry.deployments.values() if not each.auth or caller.may_use(each.names)]
        return JSONResponse({"object": "list", "data": [_card(known, known.name) for known in listed]})

    @app.get("/v1/models/{model:path}")
    async def model(model: str, request: Request) -> Response:
        known = find(model, request)
        return respond(known) if isinstance(known, OpenAIError) else JSONResponse(_card(known, model))

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"])
    async def anything_else(path: str, request: Request) -> Response:
        refusal = refusal_of(request)
        if refusal is not None and not open_models():
            return respond(refusal)
        if request.method != "POST" or f"/{path}" not in ENGINE_PATHS:
            return respond(OpenAIError(404, f"There is no {request.method} /{path[:200]} here.", "not_found"))
        body = await _read(request)
        if isinstance(body, OpenAIError):
            return respond(body)
        model = model_of(body)
        known = model if isinstance(model, OpenAIError) else find(model, request)
        if isinstance(known, OpenAIError):
            return respond(known)
        return await forward(known, request, body)

    async def forward(known: Deployment, request: Request, body: bytes) -> Response:
        """Pass a request on to a replica, and its answer back as it comes."""
        replicas = known.live
        if not replicas:
            return respond(openai_errors.unavailable(f"`{known.name}` is not being served right now.", RETRY_AFTER_S))
        said = replicas[next(turn) % len(replicas)]
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP]
        url = httpx.URL(scheme="http", host=said.host, port=said.port, path=request.url.path)
        outgoing = client.build_request("POST", url, headers=headers, content=body)
        try:
            answer = await _unless_hung_up(request, client.send(outgoing, stream=True))
        except httpx.HTTPError:
            return respond(OpenAIError(502, "The model's server broke off before it answered.", "bad_gateway"))
        if answer is None:
            return Response()  # to nobody
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        return StreamingResponse(_relay(answer), answer.status_code, kept)

    return app


async def _unless_hung_up(request: Request, asking: Coroutine[Any, Any, httpx.Response]) -> httpx.Response | None:
    """The answer, or None once the client has gone: then nobody asks any more, and the engine stops."""
    answering, gone = asyncio.create_task(asking), asyncio.create_task(request.receive())
    await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if answering.done():
        return answering.result()
    answering.cancel()
    return None


async def _relay(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


async def _read(request: Request) -> bytes | OpenAIError:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return openai_errors.too_large(MAX_BODY_BYTES)
    return bytes(body)


def model_of(body: bytes) -> str | OpenAIError:
    """The model that a body names."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return openai_errors.bad_request("The body is not valid JSON.", "invalid_json")
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, str) or not model:
        return openai_errors.bad_request("You must provide a `model`.", "missing_model")
    return model


def _card(known: Deployment, name: str) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's `max_model_len`; a rehearsal says that it is one."""
    return {
        "id": name,
        "object": "model",
        "created": known.created,
        "owned_by": "moe-orchestrator",
        "max_model_len": known.max_model_len,
        **({"rehearsal": True} if known.rehearsal else {}),
    }
