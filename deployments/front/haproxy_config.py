"""HAProxy's configuration, model map and error pages as text. Pure.

Why HAProxy and why ours: docs/front.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from deployments import openai_errors
from deployments.front.registry import Deployment
from deployments.governance.access import OUR_HEADERS
from deployments.openai_errors import OpenAIError

# What a replica's app may be asked through the front. Everything else it offers stays inside.
ENGINE_PATHS = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/score", "/score", "/v1/rerank", "/rerank", "/pooling", "/classify",
    "/tokenize", "/detokenize",
)  # fmt: skip
# The model is chosen by the body's `model`, as far as one buffer reaches; longer bodies go by the ingress, which
# reads them whole. A buffer is held per connection only while its request or answer passes.
BUFFER_BYTES = 128 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
RETRY_AFTER_S = 5
# When routes change, old workers finish the answers they have begun, at most for so long.
LONGEST_ANSWER_S = 3600
# All files lie in the front's working folder and go by their bare names: a folder may have spaces, which HAProxy's
# language cannot take, or be deeper than the 108 bytes that a socket's path may have.
CONFIG_PATH = Path("haproxy.cfg")
MAP_PATH = Path("models.map")
LONG_HEADERS_PATH = Path("431.json")
INGRESS_SOCKET = Path("ingress.sock")
# What a page needs to know when it may ask again.
_EXPOSED = "retry-after, retry-after-ms, " + ", ".join(
    f"x-ratelimit-{fact}-{of}" for of in ("requests", "tokens") for fact in ("limit", "remaining", "reset")
)
_ERRORS = (
    OpenAIError(400, "The request is not valid HTTP.", "bad_request"),
    OpenAIError(408, "The request did not arrive in time.", "request_timeout"),
    openai_errors.too_large(MAX_BODY_BYTES),
    OpenAIError(500, "The gateway failed.", "internal_error"),
    OpenAIError(502, "The model's server broke off before it answered.", "bad_gateway"),
    OpenAIError(503, "The model is not being served right now.", "unavailable", {"retry-after": str(RETRY_AFTER_S)}),
    OpenAIError(504, "The model's server did not answer in time.", "gateway_timeout"),
)


@dataclass(frozen=True)
class FrontSettings:
    """Where the front listens and what it may hold.

    host, port: the public address; idle_timeout_s: the longest silence within an answer; cors_origins: the web pages
    that may call, none unless told.
    """

    host: str
    port: int
    max_connections: int
    idle_timeout_s: int = 300
    max_header_bytes: int = 64 * 1024
    cors_origins: tuple[str, ...] = ()


def backend_name(deployment: str) -> str:
    """A backend's name: HAProxy's own alphabet, and no two deployments alike."""
    return "model_" + hashlib.sha256(deployment.encode()).hexdigest()[:16]


def render_map(routes: Mapping[str, str]) -> str:
    """Model names and aliases with their backends, one a line."""
    return "".join(f"{name} {backend_name(target)}\n" for name, target in sorted(routes.items()))


def error_pages(settings: FrontSettings) -> dict[Path, bytes]:
    """HAProxy's own errors, in OpenAI's shape and with their own status, as whole HTTP responses.

    The one of long headers is a body alone: HAProxy 2.8 has no place for a whole one with that status.
    """
    pages = {Path(f"{error.status}.http"): _page(error) for error in _ERRORS}
    return {**pages, LONG_HEADERS_PATH: openai_errors.headers_too_large(settings.max_header_bytes).body}


def _page(error: OpenAIError) -> bytes:
    headers = {
        "content-type": "application/json",
        "content-length": str(len(error.body)),
        "connection": "close",
    }
    lines = [f"{name}: {value}" for name, value in {**headers, **error.headers}.items()]
    head = "\r\n".join([f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *lines, "", ""])
    return head.encode() + error.body


def render_config(settings: FrontSettings, deployments: Iterable[Deployment]) -> str:
    """The whole configuration: public frontend, one backend per deployment, and the ingress for the rest."""
    blocks = [_global(settings), _defaults(settings), _frontend(settings), _ingress()]
    return "\n".join([*blocks, *(_backend(known) for known in deployments)])


def _global(settings: FrontSettings) -> str:
    return f"""\
global
    maxconn {settings.max_connections}
    tune.bufsize {BUFFER_BYTES}
    hard-stop-after {LONGEST_ANSWER_S}s
"""


def _defaults(settings: FrontSettings) -> str:
    pages = "\n".join(f"    errorfile {error.status} {error.status}.http" for error in _ERRORS)
    return f"""\
defaults
    mode http
    option redispatch
    option abortonclose
    option http-no-delay
    retries 2
    retry-on conn-failure
    http-reuse always
    timeout connect 5s
    timeout http-request 30s
    timeout http-keep-alive 75s
    timeout queue 30s
    timeout client {settings.idle_timeout_s}s
    timeout server {settings.idle_timeout_s}s
{pages}
"""


def _frontend(settings: FrontSettings) -> str:
    # A body of unknown length goes by the ingress, which stops reading at the limit.
    model = f"req.body,json_query('$.model'),map_str({MAP_PATH})"
    return f"""\
frontend public
    bind {settings.host}:{settings.port}
    acl long_headers req.hdrs,length gt {settings.max_header_bytes}
    http-request return status 431 content-type application/json file {LONG_HEADERS_PATH} if long_headers
    http-request del-header {OUR_HEADERS.decode()} -m beg
{_cors(settings.cors_origins)}
    acl engine_path path {" ".join(ENGINE_PATHS)}
    acl sized req.hdr(content-length) -m found
    http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {MAX_BODY_BYTES} }}
    http-request wait-for-body time 30s if METH_POST engine_path
    http-request set-var(txn.backend) {model} if METH_POST engine_path sized
    use_backend %[var(txn.backend)] if {{ var(txn.backend) -m found }}
    default_backend ingress
"""


def _cors(origins: tuple[str, ...]) -> str:
    """What browsers ask before they let a page call: closed, whatever the engine's app says, but for `origins`."""
    closed = "    http-after-response del-header access-control- -m beg"
    if not origins:
        return closed
    named = "if { var(txn.origin) -m found }"
    return f"""\
    http-request set-var(txn.origin) req.hdr(origin) if {{ req.hdr(origin) -m str {" ".join(origins)} }}
    http-request return status 204 hdr access-control-allow-methods "GET, POST" \
hdr access-control-allow-headers %[req.hdr(access-control-request-headers)] hdr access-control-max-age 600 \
if METH_OPTIONS {{ req.hdr(access-control-request-method) -m found }} {{ var(txn.origin) -m found }}
    http-after-response del-header access-control-allow-origin
    http-after-response del-header access-control-allow-credentials
    http-after-response set-header access-control-allow-origin %[var(txn.origin)] {named}
    http-after-response set-header access-control-expose-headers "{_EXPOSED}" {named}
    http-after-response add-header vary origin"""


def _ingress() -> str:
    return f"""\
backend ingress
    server ingress unix@{INGRESS_SOCKET}
"""


def _backend(known: Deployment) -> str:
    servers = [f"    server {said.replica} {said.host}:{said.port}" for said in known.live]
    return "\n".join([
        f"backend {backend_name(known.name)}",
        "    balance leastconn",
        "    option httpchk GET /health",
        "    http-check expect status 200",
        "    default-server check inter 2s fall 2 rise 1",
        *servers,
        "",
    ])  # fmt: skip
