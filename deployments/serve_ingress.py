"""The other way in, where HAProxy cannot run: Ray's own OpenAI ingress behind Serve's proxy (`deploy --front serve`).

Slower, since every chunk passes two more processes (docs/front.md); otherwise the same models, keys and errors.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import ValidationError
from ray import serve
from ray.llm._internal.serve.core.configs.openai_api_models import ModelCard, OpenAIHTTPException
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress

from deployments.front_link import HEARTBEAT_S
from deployments.governance.access import AccessPolicy, ApiKeyGate
from deployments.openai_errors import OpenAIError, bad_request, unknown_model
from orchestrator.store.secrets import control_token

logger = logging.getLogger(__name__)


class Directory:
    """What the front's inner door knows: the models there are, and who may call. Asked once a second."""

    def __init__(self) -> None:
        self.policy: AccessPolicy | None = None
        self.deployments: list[dict[str, Any]] = []

    async def refresh(self, client: httpx.AsyncClient) -> None:
        """Ask once; when nobody answers, what was known stays in force."""
        try:
            response = await client.get("/directory")
            response.raise_for_status()
            document = response.json()
        except (httpx.HTTPError, ValueError) as error:
            logger.warning("the front's inner door does not answer (%s); still trying", type(error).__name__)
            return
        self.policy = AccessPolicy.from_json(document["access"])
        self.deployments = document["deployments"]

    def current_policy(self) -> AccessPolicy | None:
        return self.policy

    @property
    def all_open(self) -> bool:
        """Whether every model is served without a key: only then is nobody asked for one here."""
        return bool(self.deployments) and not any(known["auth"] for known in self.deployments)


directory = Directory()


class _KeyUnlessOpen:
    """ASGI middleware: `ApiKeyGate`, except where all models are open."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self._gate = ApiKeyGate(app, directory.current_policy)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await (self.app if directory.all_open else self._gate)(scope, receive, send)


class MoEIngress(OpenAiIngress):
    """Ray's ingress over whatever models are deployed at the moment, each an application of its own."""

    async def __init__(self, control_url: str) -> None:  # type: ignore[misc]
        super().__init__({}, {})
        self._client = httpx.AsyncClient(
            base_url=control_url,
            headers={"authorization": f"Bearer {control_token()}"},
            timeout=5.0,
            trust_env=False,
        )
        await self._follow_once()
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._follow_once()

    async def _follow_once(self) -> None:
        """Take up models that came, drop those that went."""
        await directory.refresh(self._client)
        names = {name: known for known in directory.deployments for name in known["names"]}
        for gone in set(self._model_cards) - set(names):
            for table in (self._model_cards, self._default_serve_handles, self._configured_serve_handles):
                table.pop(gone, None)
        for name, known in names.items():
            if name not in self._model_cards:
                self._default_serve_handles[name] = serve.get_deployment_handle("engine", known["name"])
                self._model_cards[name] = _card(name, known)

    async def models(self) -> Any:
        """The deployed models under their own names; aliases are accepted but not listed."""
        listed = await super().models()
        own = {known["name"] for known in directory.deployments}
        listed.data = [card for card in listed.data if card.id in own]
        return listed


def _card(name: str, known: dict[str, Any]) -> ModelCard:
    metadata = {"max_model_len": known["max_model_len"], "created": known["created"]}
    return ModelCard(id=name, object="model", owned_by="moe-orchestrator", permission=[], metadata=metadata)


def _application() -> FastAPI:
    """The FastAPI app under Ray's routes: our key gate, OpenAI's error shape, nothing open to other origins."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(_KeyUnlessOpen)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def refuse(_request: Request, raised: Exception) -> Response:
        error = as_openai_error(raised)
        return Response(error.body, error.status, error.headers, media_type="application/json")

    for kind in (HTTPException, RequestValidationError, ValidationError, OpenAIHTTPException):
        app.add_exception_handler(kind, refuse)
    return app


def as_openai_error(raised: Exception) -> OpenAIError:
    """What Ray's ingress raises, in OpenAI's shape and without its inner texts."""
    if isinstance(raised, (RequestValidationError, ValidationError)):
        first = raised.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part != "body")
        return bad_request(f"{field}: {first['msg']}" if field else str(first["msg"]))
    status = int(getattr(raised, "status_code", 500))
    message = str(getattr(raised, "detail", None) or getattr(raised, "message", None) or "The gateway failed.")
    if status == 404 and "model" in message.lower():
        return OpenAIError(404, message, unknown_model("").code)
    return OpenAIError(status, message, "not_found" if status == 404 else "invalid_request")


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of this ingress."""
    ingress = make_fastapi_ingress(MoEIngress, app=_application())
    options = {"name": "ingress", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(**options, max_ongoing_requests=1_000_000)(ingress).bind(str(args["control_url"]))
