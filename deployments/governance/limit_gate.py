"""The limits of keys and the bounds of all requests, as ASGI middleware around the engine's app."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from deployments import openai_errors
from deployments.deadline import timeout
from deployments.governance.access import CALLER, AccessPolicy, Bounds, Caller
from deployments.governance.accounts import Account, Accounts, Meter, Refused
from deployments.governance.body import Asked, read_body, replayed, too_deep
from deployments.governance.leases import CONCURRENT, REQUESTS, TOKENS
from deployments.openai_errors import OpenAIError
from orchestrator.store.limits import NO_LIMITS, Limits

# The meter of the request that is being answered; what counts tokens looks here.
METER: ContextVar[Meter | None] = ContextVar("orchestrator_meter", default=None)
# Paths that make the engine write; others use no tokens of an answer.
WRITING_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})


class LimitGate:
    """Reads the body within bounds, lets the request in by its key's limits, and meters it while it runs.

    It stands behind `ApiKeyGate`; a request without a caller (a model that needs no key) is held to the bounds alone.
    Chunks of an answer pass it without being looked at.
    """

    def __init__(self, app: Any, policy: Callable[[], AccessPolicy | None], accounts: Callable[[], Accounts]) -> None:
        self.app = app
        self._policy, self._accounts = policy, accounts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        policy = self._policy()
        bounds = policy.bounds if policy is not None else Bounds()
        body = await read_body(receive, bounds)
        if body is None:  # to nobody
            return
        if isinstance(body, OpenAIError):
            await body.send(send)
            return
        if too_deep(body, bounds.max_json_depth):
            await openai_errors.too_deep(bounds.max_json_depth).send(send)
            return
        caller: Caller | None = scope.get(CALLER)
        if caller is None:
            await self._run(scope, replayed(body, receive), send, bounds)
        else:
            await self._run_metered(scope, body, receive, send, bounds, caller)

    async def _run_metered(
        self, scope: Any, body: bytes, receive: Any, send: Any, bounds: Bounds, caller: Caller
    ) -> None:
        limits, accounts = caller.limits, self._accounts()
        asked = Asked(0, 0) if limits == NO_LIMITS else Asked.of(body)
        if scope["path"] not in WRITING_PATHS:
            asked = Asked(asked.prompt, 0)
        if (refusal := _never(asked, limits)) is not None:
            await refusal.send(send)
            return
        answer = None if asked.answer is None else asked.answer * asked.choices
        if asked.answer is None and limits.max_answer_tokens and limits.counts_tokens:
            answer = _at_most(limits, limits.max_answer_tokens * asked.choices, asked.prompt)
        admitted = await accounts.admit(caller.id, limits, asked.prompt, answer)
        account = accounts.account(caller.id)
        if isinstance(admitted, Refused):
            await refused(admitted, limits, account).send(send)
            return
        METER.set(admitted)
        try:
            await self._run(scope, replayed(body, receive), send, bounds, lambda: rate_headers(limits, account))
        finally:
            admitted.close()

    async def _run(
        self, scope: Any, receive: Any, send: Any, bounds: Bounds, headers: Callable[[], dict[str, str]] = dict
    ) -> None:
        """Answer within the time there is, with `headers` more. What has begun to answer by then is broken off."""
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            if not begun:
                begun = True
                more = [(name.encode(), value.encode()) for name, value in headers().items()]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        try:
            async with timeout(bounds.request_timeout_s):
                await self.app(scope, receive, sending)
        except asyncio.TimeoutError:
            if begun:
                raise
            await openai_errors.took_too_long(bounds.request_timeout_s).send(send)


def _at_most(limits: Limits, answer: int, prompt: int) -> int:
    most = limits.most_tokens
    return answer if most is None else max(1, min(answer, most - prompt))


def _never(asked: Asked, limits: Limits) -> OpenAIError | None:
    """Why a request can never be let in, however long it waits."""
    if limits.max_answer_tokens is not None and (asked.answer or 0) > limits.max_answer_tokens:
        return openai_errors.answer_too_long(asked.answer or 0, limits.max_answer_tokens)
    most = limits.most_tokens
    tokens = asked.prompt + (asked.answer or 0) * asked.choices
    if most is not None and tokens > most:
        return openai_errors.never_fits(tokens, most)
    return None


def refused(why: Refused, limits: Limits, account: Account) -> OpenAIError:
    """The 429 of a limit, with the headers by which clients know when to come again."""
    wait_s = max(why.wait_s, 0.001)
    headers = {
        "retry-after": str(math.ceil(wait_s)),
        "retry-after-ms": str(math.ceil(wait_s * 1000)),
        **rate_headers(limits, account),
    }
    if why.budget is not None:
        budget = limits.tokens_per_day if why.budget == "day" else limits.tokens_per_month
        return openai_errors.budget_spent(budget or 0, why.budget, headers)
    limit, unit = {
        REQUESTS: (limits.requests_per_minute, "requests per minute"),
        TOKENS: (limits.tokens_per_minute, "tokens per minute"),
        CONCURRENT: (limits.concurrent_requests, "requests at a time"),
    }[why.resource]
    return openai_errors.rate_limited(limit or 0, unit, wait_s, headers)


def rate_headers(limits: Limits, account: Account) -> dict[str, str]:
    """The `x-ratelimit-*` headers of OpenAI, for the limits by the minute that there are."""
    headers = {}
    for resource, limit in ((REQUESTS, limits.requests_per_minute), (TOKENS, limits.tokens_per_minute)):
        if limit:
            lease = account.leases[resource]
            headers[f"x-ratelimit-limit-{resource}"] = str(limit)
            headers[f"x-ratelimit-remaining-{resource}"] = str(min(limit, lease.remaining))
            headers[f"x-ratelimit-reset-{resource}"] = go_duration(lease.answer.reset_s if lease.answer else 0.0)
    return headers


def go_duration(seconds: float) -> str:
    """`6m0s`, `1.5s`, `20ms`: how OpenAI writes times in these headers."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return (f"{minutes}m" if minutes else "") + f"{rest / 1000:g}s"
