"""The OpenAI-compatible FastAPI ingress beside HAProxy: model lists, refusals, and bodies too long for a buffer."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from deployments import openai_errors
from deployments.front.haproxy_config import ENGINE_PATHS, RETRY_AFTER_S
from deployments.front.registry import Deployment, Registry
from deployments.governance.access import AccessPolicy
from deployments.openai_errors import OpenAIError

MAX_BODY_BYTES = 64 * 1024 * 1024
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

    def visible(request: Request) -> list[Deployment] | OpenAIError:
        """The deployments a caller may see: all with a key, the open ones without."""
        refusal = policy().refusal(request.scope["headers"])
        if refusal is None:
            return list(registry.deployments.values())
        return [known for known in registry.deployments.values() if not known.auth] or refusal

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        allowed = visible(request)
        if isinstance(allowed, OpenAIError):
            return respond(allowed)
        return JSONResponse({"object": "list", "data": [_card(known, known.name) for known in allowed]})

    @app.get("/v1/models/{model:path}")
    async def model(model: str, request: Request) -> Response:
        allowed = visible(request)
        if isinstance(allowed, OpenAIError):
            return respond(allowed)
        known = registry.find(model)
        if known is None or known not in allowed:
            return respond(openai_errors.unknown_model(model))
        return JSONResponse(_card(known, model))

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    async def anything_else(path: str, request: Request) -> Response:
        allowed = visible(request)
        if isinstance(allowed, OpenAIError):
            return respond(allowed)
        if request.method != "POST" or f"/{path}" not in ENGINE_PATHS:
            return respond(OpenAIError(404, f"There is no {request.method} /{path[:200]} here.", "not_found"))
        body = await _read(request)
        if isinstance(body, OpenAIError):
            return respond(body)
        known = _choose(registry, allowed, body)
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
        outgoing = client.build_request(
            "POST", f"http://{said.host}:{said.port}{request.url.path}", headers=headers, content=body
        )
        try:
            answer = await client.send(outgoing, stream=True)
        except httpx.HTTPError:
            return respond(OpenAIError(502, "The model's server broke off before it answered.", "bad_gateway"))
        kept = {name: value for name, value in answer.headers.items() if name not in _HOP_BY_HOP}
        return StreamingResponse(_relay(answer), answer.status_code, kept)

    return app


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
            limit_mib = MAX_BODY_BYTES // 1024**2
            return OpenAIError(413, f"The body is larger than {limit_mib} MiB.", "request_too_large")
    return bytes(body)


def _choose(registry: Registry, allowed: list[Deployment], body: bytes) -> Deployment | OpenAIError:
    """The deployment that the body's `model` names, if the caller may use it."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return openai_errors.bad_request("The body is not valid JSON.", "invalid_json")
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, str) or not model:
        return openai_errors.bad_request("You must provide a `model`.", "missing_model")
    known = registry.find(model)
    if known is None or known not in allowed:
        return openai_errors.unknown_model(model)
    return known


def _card(known: Deployment, name: str) -> dict[str, Any]:
    """OpenAI's model object, with vLLM's `max_model_len`."""
    return {
        "id": name,
        "object": "model",
        "created": known.created,
        "owned_by": "moe-orchestrator",
        "max_model_len": known.max_model_len,
    }
