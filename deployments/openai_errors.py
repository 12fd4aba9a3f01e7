"""Errors in the shape OpenAI's clients parse: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


@dataclass(frozen=True)
class OpenAIError:
    """One refusal: what the client sees, and nothing of what happened inside."""

    status: int
    message: str
    code: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error}).encode()

    async def send(self, send: Any) -> None:
        """Answer an ASGI request with this error."""
        headers = {"content-type": "application/json", "content-length": str(len(self.body)), **self.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": encoded})
        await send({"type": "http.response.body", "body": self.body})


def missing_key() -> OpenAIError:
    return OpenAIError(
        401,
        "You didn't provide an API key. Send it as `Authorization: Bearer KEY` (api_key=… in the OpenAI SDK).",
        "missing_api_key",
        {"www-authenticate": "Bearer"},
    )


def wrong_key() -> OpenAIError:
    return OpenAIError(401, "Incorrect API key provided.", "invalid_api_key", {"www-authenticate": "Bearer"})


def expired_key() -> OpenAIError:
    return OpenAIError(401, "This API key has expired.", "expired_api_key", {"www-authenticate": "Bearer"})


def model_not_allowed(model: str) -> OpenAIError:
    return OpenAIError(403, f"This API key may not use the model `{model[:200]}`.", "model_not_allowed")


def not_this_way() -> OpenAIError:
    return OpenAIError(
        403, "Keys with limits or with models of their own are not accepted by Ray's proxy.", "key_not_accepted_here"
    )


def rate_limited(limit: int, unit: str, wait_s: float, headers: dict[str, str]) -> OpenAIError:
    message = f"Rate limit reached: {limit} {unit}. Please try again in {wait_s:.3g}s."
    return OpenAIError(429, message, "rate_limit_exceeded", headers)


def budget_spent(budget: int, period: str, headers: dict[str, str]) -> OpenAIError:
    message = f"The budget of this API key is used up: {budget} tokens a {period} (UTC)."
    return OpenAIError(429, message, "insufficient_quota", headers)


def never_fits(tokens: int, limit: int) -> OpenAIError:
    message = f"The request may use {tokens} tokens; this API key's limits allow {limit}. Ask for a shorter answer."
    return OpenAIError(400, message, "request_exceeds_limit")


def answer_too_long(asked: int, limit: int) -> OpenAIError:
    message = f"The request asks for an answer of {asked} tokens; this API key may have {limit}."
    return OpenAIError(400, message, "answer_too_long")


def prompt_too_long(tokens: int, limit: int) -> OpenAIError:
    message = f"The prompt has {tokens} tokens; this API key may send {limit}."
    return OpenAIError(400, message, "prompt_too_long")


def too_deep(limit: int) -> OpenAIError:
    return bad_request(f"The body nests deeper than {limit} levels.", "json_too_deep")


def slow_request() -> OpenAIError:
    return OpenAIError(408, "The request did not arrive in time.", "request_timeout")


def took_too_long(limit_s: float) -> OpenAIError:
    return OpenAIError(504, f"The answer did not come within {limit_s:g} s.", "gateway_timeout")


def headers_too_large(limit_bytes: int) -> OpenAIError:
    return OpenAIError(431, f"The headers are larger than {limit_bytes // 1024} KiB.", "headers_too_large")


def unknown_model(model: str) -> OpenAIError:
    return OpenAIError(404, f"The model `{model[:200]}` does not exist.", "model_not_found")


def bad_request(message: str, code: str = "invalid_request") -> OpenAIError:
    return OpenAIError(400, message, code)


def too_large(limit_bytes: int) -> OpenAIError:
    return OpenAIError(413, f"The body is larger than {limit_bytes // 1024**2} MiB.", "request_too_large")


def unavailable(message: str, retry_after_s: int) -> OpenAIError:
    return OpenAIError(503, message, "unavailable", {"retry-after": str(retry_after_s)})
