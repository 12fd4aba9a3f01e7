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


def unknown_model(model: str) -> OpenAIError:
    return OpenAIError(404, f"The model `{model[:200]}` does not exist.", "model_not_found")


def bad_request(message: str, code: str = "invalid_request") -> OpenAIError:
    return OpenAIError(400, message, code)


def too_large(limit_bytes: int) -> OpenAIError:
    return OpenAIError(413, f"The body is larger than {limit_bytes // 1024**2} MiB.", "request_too_large")


def unavailable(message: str, retry_after_s: int) -> OpenAIError:
    return OpenAIError(503, message, "unavailable", {"retry-after": str(retry_after_s)})
