"""Who is let in: keys as digests, compared in constant time, refused in OpenAI's shape."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.governance.access import AccessPolicy, ApiKeyGate, bearer_key
from orchestrator.store.secrets import hash_key
from tests.unit.asgi import ask

KEY = "moe-right"
POLICY = AccessPolicy(frozenset({hash_key(KEY), hash_key("moe-second")}))


def header(value: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", value)]


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer abc", "abc"),
        (b"BEARER abc", "abc"),
        (b"Bearer   abc  ", "abc"),
        (b"Bearer a b", "a b"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Bearer\tabc", None),
        (b"Basic abc", None),
        (b"abc", None),
        (b"", None),
        (b"Bearer \xff\xfe", "\xff\xfe"),
    ],
)
def test_a_bearer_key_is_read_as_clients_send_it(value: bytes, key: str | None) -> None:
    assert bearer_key(header(value)) == key


def test_only_the_first_of_two_authorizations_counts() -> None:
    assert bearer_key([*header(b"Bearer first"), *header(b"Bearer second")]) == "first"
    assert bearer_key([]) is None


@given(st.binary(max_size=50))
def test_any_bytes_are_refused_without_an_exception(value: bytes) -> None:
    refusal = POLICY.refusal(header(value))
    assert refusal is not None
    assert refusal.status == 401


def test_every_key_of_the_policy_is_admitted_and_no_other() -> None:
    assert POLICY.admits(KEY)
    assert POLICY.admits("moe-second")
    assert not POLICY.admits("moe-righ")
    assert not POLICY.admits(hash_key(KEY))
    assert not AccessPolicy().admits("")


def test_every_digest_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time must not tell how much of a key was right, nor which of the keys it was."""
    compared: list[str] = []
    really = hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append(b)
        return really(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for key in (KEY, "moe-second", "wrong"):
        compared.clear()
        POLICY.admits(key)
        assert set(compared) == POLICY.key_digests


def test_a_policy_travels_as_json_and_holds_no_key() -> None:
    text = json.dumps(POLICY.to_json())
    assert AccessPolicy.from_json(json.loads(text)) == POLICY
    assert KEY not in text


class Inner:
    """The application behind the gate."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached.append(scope["type"] + scope.get("path", ""))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})


@pytest.fixture
def inner() -> Inner:
    return Inner()


def test_the_right_key_opens_the_gate(inner: Inner) -> None:
    assert ask(ApiKeyGate(inner, lambda: POLICY), "/v1/models", header(b"Bearer moe-right")).body == b"in"


@pytest.mark.parametrize(
    ("headers", "code"),
    [([], "missing_api_key"), (header(b"Bearer"), "missing_api_key"), (header(b"Bearer no"), "invalid_api_key"),
     (header(b"Bearer \xff"), "invalid_api_key"), (header(b"Basic bW9l"), "missing_api_key")],
)  # fmt: skip
def test_everybody_else_gets_401_and_reaches_nothing(
    inner: Inner, headers: list[tuple[bytes, bytes]], code: str
) -> None:
    answer = ask(ApiKeyGate(inner, lambda: POLICY), "/v1/models", headers)
    assert answer.status == 401
    assert json.loads(answer.body)["error"]["code"] == code
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert inner.reached == []


@pytest.mark.parametrize("path", ["/health/", "/HEALTH", "//health", "/health/../metrics", "/metrics", "/v1/health"])
def test_only_health_itself_is_open(inner: Inner, path: str) -> None:
    gate = ApiKeyGate(inner, lambda: POLICY)
    assert ask(gate, "/health").status == 200
    assert ask(gate, path).status == 401


def test_before_the_rules_are_known_nobody_is_let_in(inner: Inner) -> None:
    answer = ask(ApiKeyGate(inner, lambda: None), "/v1/models", header(b"Bearer moe-right"))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert inner.reached == []


def test_rules_that_change_are_in_force_at_once(inner: Inner) -> None:
    rules = [POLICY]
    gate = ApiKeyGate(inner, lambda: rules[-1])
    rules.append(AccessPolicy(frozenset({hash_key("moe-new")})))
    assert ask(gate, "/v1/models", header(b"Bearer moe-right")).status == 401
    assert ask(gate, "/v1/models", header(b"Bearer moe-new")).status == 200


def test_a_websocket_is_closed_and_a_lifespan_passes(inner: Inner) -> None:
    gate = ApiKeyGate(inner, lambda: POLICY)
    assert ask(gate, "/v1/realtime", kind="websocket").closed_with == 1008
    assert inner.reached == []
    ask(gate, kind="lifespan")
    assert inner.reached == ["lifespan/"]
