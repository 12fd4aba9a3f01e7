"""Who may call: API keys, held as digests and compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deployments import openai_errors
from orchestrator.store.secrets import hash_key

# What a load balancer asks without a key, and nothing else.
OPEN_PATHS = frozenset({"/health"})


@dataclass(frozen=True)
class AccessPolicy:
    """The keys in force, as digests; without any, every key is refused."""

    key_digests: frozenset[str] = frozenset()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AccessPolicy:
        return cls(frozenset(document["key_digests"]))

    def to_json(self) -> dict[str, Any]:
        return {"key_digests": sorted(self.key_digests)}

    def admits(self, key: str) -> bool:
        """Whether `key` is one of ours. Every digest is compared, so that time tells nothing of which."""
        digest = hash_key(key)
        return sum(hmac.compare_digest(digest, known) for known in self.key_digests) > 0

    def refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> openai_errors.OpenAIError | None:
        """None for a request with a right key, else the error to answer with."""
        key = bearer_key(headers)
        if key is None:
            return openai_errors.missing_key()
        return None if self.admits(key) else openai_errors.wrong_key()


def bearer_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key of `Authorization: Bearer KEY`; undecodable bytes make a wrong key, not an exception."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


class ApiKeyGate:
    """ASGI middleware: every path but `OPEN_PATHS` needs a key of the policy in force at that moment.

    `policy()` returns None while none is known yet: then nobody is let in.
    """

    def __init__(self, app: Any, policy: Callable[[], AccessPolicy | None]) -> None:
        self.app = app
        self._policy = policy

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        policy = self._policy()
        refusal = (
            policy.refusal(scope["headers"])
            if policy is not None
            else openai_errors.unavailable("Access rules are not loaded yet.", 1)
        )
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await refusal.send(send)
