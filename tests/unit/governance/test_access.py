"""Who is let in: keys as digests, compared in constant time, refused in OpenAI's shape."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.governance.access import CALLER, AccessPolicy, ApiKeyGate, Caller, bearer_key
from deployments.openai_errors import OpenAIError
from orchestrator.store.keys import Secret
from orchestrator.store.limits import Limits
from orchestrator.store.secrets import hash_key
from tests.unit.asgi import ask

KEY = "moe-right"
NOW_S = 1000.0


def caller(*keys: str, **more: Any) -> Caller:
    return Caller(f"key_{hash_key(keys[0])[:6]}", tuple(Secret(hash_key(key)) for key in keys), **more)


POLICY = AccessPolicy((caller(KEY, "moe-second"), caller("moe-third")))
NAMES = ("smol", "org/Smol")


def gate(app: Any, policy: Callable[[], AccessPolicy | None]) -> ApiKeyGate:
    return ApiKeyGate(app, policy, NAMES, lambda: NOW_S)


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
    refusal = POLICY.identify(header(value), NOW_S)
    assert isinstance(refusal, OpenAIError)
    assert refusal.status == 401


def test_every_key_of_the_policy_is_admitted_and_no_other() -> None:
    for key, owner in ((KEY, 0), ("moe-second", 0), ("moe-third", 1)):
        assert POLICY.find(key, NOW_S) is POLICY.callers[owner]
    for key in ("moe-righ", hash_key(KEY), ""):
        assert POLICY.find(key, NOW_S) is None
    assert AccessPolicy().find("", NOW_S) is None


def test_an_old_secret_is_good_until_its_time() -> None:
    turning = Caller("key_t", (Secret(hash_key("old"), 1000), Secret(hash_key("new"))))
    policy = AccessPolicy((turning,))
    assert policy.find("old", 999.9) is turning
    assert policy.find("old", 1000) is None
    assert policy.find("new", 5000) is turning


def test_an_expired_key_is_told_so_and_a_wrong_one_is_not() -> None:
    policy = AccessPolicy((caller("brief", expires_s=1000),))
    assert isinstance(policy.identify(header(b"Bearer brief"), 999), Caller)
    for key, code in ((b"Bearer brief", "expired_api_key"), (b"Bearer other", "invalid_api_key")):
        refusal = policy.identify(header(key), 1000)
        assert isinstance(refusal, OpenAIError)
        assert refusal.code == code


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
        POLICY.find(key, NOW_S)
        assert set(compared) == {secret.digest for each in POLICY.callers for secret in each.secrets}


def test_a_policy_travels_as_json_and_holds_no_key() -> None:
    full = Caller("a", (Secret("d", 5),), "admin", frozenset({"m"}), Limits(tokens_per_day=5), 9)
    policy = AccessPolicy((*POLICY.callers, full))
    text = json.dumps(policy.to_json())
    assert AccessPolicy.from_json(json.loads(text)) == policy
    assert KEY not in text


class Inner:
    """The application behind the gate."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.scope: Any = None

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        self.scope = scope
        self.reached.append(scope["type"] + scope.get("path", ""))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})


@pytest.fixture
def inner() -> Inner:
    return Inner()


def test_the_right_key_opens_the_gate(inner: Inner) -> None:
    assert ask(gate(inner, lambda: POLICY), "/v1/models", header(b"Bearer moe-right")).body == b"in"


@pytest.mark.parametrize(
    ("headers", "code"),
    [([], "missing_api_key"), (header(b"Bearer"), "missing_api_key"), (header(b"Bearer no"), "invalid_api_key"),
     (header(b"Bearer \xff"), "invalid_api_key"), (header(b"Basic bW9l"), "missing_api_key")],
)  # fmt: skip
def test_everybody_else_gets_401_and_reaches_nothing(
    inner: Inner, headers: list[tuple[bytes, bytes]], code: str
) -> None:
    answer = ask(gate(inner, lambda: POLICY), "/v1/models", headers)
    assert answer.status == 401
    assert json.loads(answer.body)["error"]["code"] == code
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert inner.reached == []


@pytest.mark.parametrize("path", ["/health/", "/HEALTH", "//health", "/health/../metrics", "/metrics", "/v1/health"])
def test_only_health_itself_is_open(inner: Inner, path: str) -> None:
    guarded = gate(inner, lambda: POLICY)
    assert ask(guarded, "/health").status == 200
    assert ask(guarded, path).status == 401


def test_before_the_rules_are_known_nobody_is_let_in(inner: Inner) -> None:
    answer = ask(gate(inner, lambda: None), "/v1/models", header(b"Bearer moe-right"))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert inner.reached == []


def test_rules_that_change_are_in_force_at_once(inner: Inner) -> None:
    rules = [POLICY]
    guarded = gate(inner, lambda: rules[-1])
    rules.append(AccessPolicy((caller("moe-new"),)))
    assert ask(guarded, "/v1/models", header(b"Bearer moe-right")).status == 401
    assert ask(guarded, "/v1/models", header(b"Bearer moe-new")).status == 200


def test_a_websocket_is_closed_and_a_lifespan_passes(inner: Inner) -> None:
    guarded = gate(inner, lambda: POLICY)
    assert ask(guarded, "/v1/realtime", kind="websocket").closed_with == 1008
    assert inner.reached == []
    ask(guarded, kind="lifespan")
    assert inner.reached == ["lifespan/"]


def test_a_key_opens_only_its_own_models(inner: Inner) -> None:
    for models, status in ((None, 200), ({"org/Smol"}, 200), ({"other"}, 403)):
        policy = AccessPolicy((caller(KEY, models=None if models is None else frozenset(models)),))
        assert ask(gate(inner, lambda: policy), "/v1/models", header(b"Bearer moe-right")).status == status  # noqa: B023


@pytest.mark.parametrize("more", [{"models": frozenset({"smol"})}, {"limits": Limits(tokens_per_day=1)}])
def test_where_models_and_limits_cannot_be_kept_such_keys_are_refused(inner: Inner, more: dict[str, Any]) -> None:
    """The gate of the way in that serves all models at once, and does not see tokens."""
    policy = AccessPolicy((caller(KEY, **more), caller("moe-free")))
    open_to_all = ApiKeyGate(inner, lambda: policy, None, lambda: NOW_S)
    assert ask(open_to_all, "/v1/models", header(b"Bearer moe-right")).status == 403
    assert ask(open_to_all, "/v1/models", header(b"Bearer moe-free")).status == 200


def test_who_calls_stands_in_the_scope_and_in_no_header_of_the_clients(inner: Inner) -> None:
    claims = [(b"x-orchestrator-key-id", b"key_admin"), (b"x-other", b"kept"), *header(b"Bearer moe-right")]
    ask(gate(inner, lambda: POLICY), "/v1/models", claims)
    assert inner.scope[CALLER] is POLICY.callers[0]
    names = {name for name, _ in inner.scope["headers"]}
    assert b"x-orchestrator-key-id" not in names
    assert b"x-other" in names
