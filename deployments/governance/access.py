"""Who may call: API keys, held as digests and compared in constant time."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deployments import openai_errors
from deployments.openai_errors import OpenAIError
from orchestrator.store.keys import Secret
from orchestrator.store.limits import NO_LIMITS, Limits
from orchestrator.store.secrets import hash_key

# What a load balancer asks without a key, and nothing else.
OPEN_PATHS = frozenset({"/health"})
# Where the caller stands in an ASGI scope, which no client can write.
CALLER = "orchestrator.caller"
# Headers by which we speak of a caller. From a client they mean nothing, and go no further.
OUR_HEADERS = b"x-orchestrator-"

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Caller:
    """A key in force, as far as those who let callers in need it. Times are Unix times."""

    id: str
    secrets: tuple[Secret, ...]
    role: str = "user"
    models: frozenset[str] | None = None
    limits: Limits = NO_LIMITS
    expires_s: int | None = None

    def may_use(self, names: Iterable[str]) -> bool:
        """Whether a model that answers to `names` is one of its own."""
        return self.models is None or not self.models.isdisjoint(names)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Caller:
        models = document["models"]
        return cls(
            document["id"],
            tuple(Secret(digest, until_s) for digest, until_s in document["secrets"]),
            document["role"],
            None if models is None else frozenset(models),
            Limits.from_json(document["limits"]),
            document["expires_s"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "secrets": [[each.digest, each.until_s] for each in self.secrets],
            "role": self.role,
            "models": None if self.models is None else sorted(self.models),
            "limits": self.limits.to_json(),
            "expires_s": self.expires_s,
        }


@dataclass(frozen=True)
class Bounds:
    """What no request may exceed, whoever sends it. Times are in seconds."""

    max_body_bytes: int = 64 * 1024 * 1024
    max_json_depth: int = 64
    body_timeout_s: float = 60.0
    request_timeout_s: float = 3600.0


DEFAULT_BOUNDS = Bounds()


@dataclass(frozen=True)
class AccessPolicy:
    """The keys in force and the bounds of all requests; without a key, every one is refused."""

    callers: tuple[Caller, ...] = ()
    bounds: Bounds = DEFAULT_BOUNDS

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AccessPolicy:
        callers = tuple(Caller.from_json(each) for each in document["callers"])
        return cls(callers, Bounds(**document["bounds"]))

    def to_json(self) -> dict[str, Any]:
        return {"callers": [caller.to_json() for caller in self.callers], "bounds": asdict(self.bounds)}

    def limits_of(self, key_id: str) -> Limits | None:
        """The limits of a key in force."""
        return next((caller.limits for caller in self.callers if caller.id == key_id), None)

    def find(self, key: str, now_s: float) -> Caller | None:
        """Whose key `key` is. Every digest is compared, so that time tells nothing of which."""
        digest = hash_key(key)
        found = None
        for caller in self.callers:
            for secret in caller.secrets:
                right = hmac.compare_digest(digest, secret.digest)
                if right and (secret.until_s is None or now_s < secret.until_s):
                    found = caller
        return found

    def identify(self, headers: Headers, now_s: float) -> Caller | OpenAIError:
        """Who sends a request with these headers, or the error to answer with."""
        key = bearer_key(headers)
        if key is None:
            return openai_errors.missing_key()
        caller = self.find(key, now_s)
        if caller is None:
            return openai_errors.wrong_key()
        if caller.expires_s is not None and caller.expires_s <= now_s:
            return openai_errors.expired_key()
        return caller


def bearer_key(headers: Headers) -> str | None:
    """The key of `Authorization: Bearer KEY`; undecodable bytes make a wrong key, not an exception."""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


class ApiKeyGate:
    """ASGI middleware: every path but `OPEN_PATHS` needs a key of the policy in force at that moment.

    `policy()` returns None while none is known yet: then nobody is let in. `names` are those of the one model behind
    the gate; a key that may not use it is refused. What is behind finds the caller in the scope, not in a header.
    """

    def __init__(
        self,
        app: Any,
        policy: Callable[[], AccessPolicy | None],
        names: Iterable[str] | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._policy = policy
        self._names = None if names is None else tuple(names)
        self._now_s = now_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        caller = self._caller(scope["headers"])
        if isinstance(caller, OpenAIError):
            await caller.send(send)
            return
        headers = [(name, value) for name, value in scope["headers"] if not name.startswith(OUR_HEADERS)]
        await self.app({**scope, "headers": headers, CALLER: caller}, receive, send)

    def _caller(self, headers: Headers) -> Caller | OpenAIError:
        policy = self._policy()
        if policy is None:
            return openai_errors.unavailable("Access rules are not loaded yet.", 1)
        caller = policy.identify(headers, self._now_s())
        if isinstance(caller, Caller):
            if self._names is not None and not caller.may_use(self._names):
                return openai_errors.model_not_allowed(self._names[0])
            if self._names is None and (caller.models is not None or caller.limits != NO_LIMITS):
                return openai_errors.not_this_way()
        return caller
