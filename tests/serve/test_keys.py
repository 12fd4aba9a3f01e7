"""Keys and limits through the real front, two replicas and OpenAI's own client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.serve.front_process import KEY, FrontProcess, eventually, running_front

pytestmark = pytest.mark.serve
# What every change must be in force within, everywhere.
IN_FORCE_S = 2.0


class Operator:
    """A front with two replicas of `smol` and one of `other`, and `orchestrator keys` on its state folder."""

    def __init__(self, front: FrontProcess) -> None:
        self.front = front

    def keys(self, *words: str) -> Any:
        """The JSON of `orchestrator keys …`; a change is given the time it may take."""
        command = [sys.executable, "-m", "orchestrator", "keys", *words, "--json"]
        environment = {"ORCHESTRATOR_HOME": str(self.front.folder), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ran.returncode == 0, ran.stderr
        if words[0] != "list":
            time.sleep(IN_FORCE_S)
        return json.loads(ran.stdout)

    def key(self, name: str, *options: str) -> str:
        """A new key."""
        made: str = self.keys("create", name, *options)["key"]
        return made

    def ask(self, key: str, model: str = "smol", **options: Any) -> Any:
        return self.front.ask(model, key=key, **options)

    def raw(self, key: str, body: bytes = b"", headers: dict[str, str] | None = None) -> httpx.Response:
        """A completion by hand, for what the SDK hides."""
        content = body or json.dumps({"model": "smol", "messages": "Hello", "max_tokens": 1}).encode()
        sent = {"authorization": f"Bearer {key}", "content-type": "application/json", **(headers or {})}
        url = f"{self.front.url}/v1/chat/completions"
        return httpx.post(url, content=content, headers=sent, trust_env=False, timeout=20)

    def used(self, name: str) -> Any:
        return next(row["used"]["day"] for row in self.keys("list") if row["name"] == name)


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "front.yaml").write_text(
        "cors_origins: [https://app.example]\nmax_header_bytes: 16384\nmax_json_depth: 20\n"
        "idle_timeout_s: 3\nrequest_timeout_s: 5\n"
    )
    with running_front(folder) as front:
        front.add_replica("smol", "smol-1", "--interval", "0.005")
        front.add_replica("smol", "smol-2", "--interval", "0.005")
        front.add_replica("other", "other-1", "--interval", "0.5")
        eventually(lambda: front.served("smol") and front.served("other"))
        yield Operator(front)


# Keys


def test_the_first_key_is_an_administrators_of_the_store(operator: Operator) -> None:
    (first,) = [row for row in operator.keys("list") if row["name"] == "first"]
    assert (first["role"], first["state"], first["limits"]) == ("admin", "active", {})
    assert operator.ask(KEY).choices


def test_a_made_key_is_let_in_and_a_revoked_one_is_not(operator: Operator) -> None:
    """Within two seconds each, and a stream of the revoked key is finished."""
    key = operator.key("come-and-go")
    stream = iter(operator.ask(key, stream=True, max_tokens=800))
    next(stream)
    assert operator.front.client(key).models.list().data
    operator.keys("revoke", "come-and-go")
    for _ in range(4):  # both replicas
        with pytest.raises(openai.AuthenticationError) as refusal:
            operator.ask(key)
        assert refusal.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        operator.front.client(key).models.list()
    assert len(list(stream)) == 799


def test_an_expired_key_is_refused_and_told_so(operator: Operator) -> None:
    key = operator.key("brief", "--expires", "4s")
    assert operator.ask(key).choices
    time.sleep(4)
    with pytest.raises(openai.AuthenticationError) as refusal:
        operator.ask(key)
    assert refusal.value.code == "expired_api_key"


def test_a_rotated_key_has_a_time_of_grace(operator: Operator) -> None:
    old = operator.key("turning")
    new = operator.keys("rotate", "turning", "--grace", "4s")["key"]
    assert operator.ask(old).choices
    assert operator.ask(new).choices
    time.sleep(3)
    with pytest.raises(openai.AuthenticationError):
        operator.ask(old)
    assert operator.ask(new).choices


def test_no_key_is_kept_anywhere(operator: Operator) -> None:
    key = operator.key("hidden")
    for path in operator.front.folder.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path
    assert (operator.front.folder / "keys.db").stat().st_mode & 0o077 == 0


def test_a_key_uses_its_own_models_only(operator: Operator) -> None:
    key = operator.key("narrow", "--models", "smol,absent")
    assert operator.ask(key).choices
    asks: list[Callable[[], object]] = [
        lambda: operator.ask(key, "other"),
        lambda: operator.front.client(key).models.retrieve("other"),
    ]
    for ask in asks:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            ask()
        assert refusal.value.code == "model_not_allowed"
    assert [model.id for model in operator.front.client(key).models.list().data] == ["smol"]


def test_identity_comes_from_the_key_alone(operator: Operator) -> None:
    """Headers and fields by which a client says who it is change nothing."""
    key = operator.key("honest", "--requests-per-minute", "2")
    body = json.dumps({"model": "smol", "messages": "x", "user": "key_first", "max_tokens": 1}).encode()
    claims = {"x-orchestrator-key-id": "key_first", "X-Orchestrator-Role": "admin"}
    answers = [operator.raw(key, body, claims).status_code for _ in range(4)]
    assert answers == [200, 200, 429, 429]


# Limits


def test_requests_a_minute_are_shared_by_the_replicas(operator: Operator) -> None:
    """More are asked for than there are, many at once; those that get through are within 5 % of the limit."""
    key = operator.key("busy", "--requests-per-minute", "200")
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: operator.raw(key).status_code, range(400)))
    assert set(answers) == {200, 429}
    assert 190 <= answers.count(200) <= 200


def test_tokens_a_minute_are_shared_by_the_replicas(operator: Operator) -> None:
    key = operator.key("wordy", "--tokens-per-minute", "4000")
    body = json.dumps({"model": "smol", "messages": "one two three", "max_tokens": 20, "stream": True}).encode()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: operator.raw(key, body).status_code, range(400)))
    assert set(answers) == {200, 429}
    eventually(lambda: operator.used("wordy")["requests"] == answers.count(200), 5)
    used = operator.used("wordy")
    assert used["tokens"] == 23 * answers.count(200)
    assert used["tokens_in"] == 3 * answers.count(200)
    assert 3800 <= used["tokens"] <= 4000


def test_a_refusal_says_when_to_come_again(operator: Operator) -> None:
    key = operator.key("once", "--requests-per-minute", "1", "--tokens-per-minute", "1000")
    first = operator.raw(key)
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    assert 900 <= int(first.headers["x-ratelimit-remaining-tokens"]) < 1000
    with pytest.raises(openai.RateLimitError) as refusal:
        operator.ask(key)
    assert refusal.value.code == "rate_limit_exceeded"
    headers = refusal.value.response.headers
    assert 50 <= int(headers["retry-after"]) <= 61
    assert headers["x-ratelimit-reset-requests"].endswith("s")


def test_a_stream_carries_the_headers_too(operator: Operator) -> None:
    key = operator.key("streamed", "--requests-per-minute", "10")
    client = operator.front.client(key)
    messages: Any = [{"role": "user", "content": "Hello"}]
    answer = client.chat.completions.with_raw_response.create(model="smol", messages=messages, stream=True)
    assert answer.headers["x-ratelimit-remaining-requests"] == "9"
    assert list(answer.parse())


def test_requests_at_a_time(operator: Operator) -> None:
    key = operator.key("parallel", "--concurrent-requests", "3")
    streams = [iter(operator.ask(key, stream=True, max_tokens=400)) for _ in range(3)]
    for stream in streams:
        next(stream)
    with pytest.raises(openai.RateLimitError) as refusal:
        operator.ask(key)
    assert int(refusal.value.response.headers["retry-after"]) >= 1
    for stream in streams:
        assert list(stream)
    assert eventually(lambda: operator.ask(key).choices, 2)


def test_a_client_that_hangs_up_frees_its_place(operator: Operator) -> None:
    key = operator.key("fickle", "--concurrent-requests", "1")
    stream = operator.ask(key, stream=True, max_tokens=900)
    next(iter(stream))
    stream.close()

    def let_in() -> bool:
        return operator.raw(key).status_code == 200

    eventually(let_in, 3)


def test_a_prompt_and_an_answer_have_a_largest_size(operator: Operator) -> None:
    key = operator.key("small", "--max-prompt-tokens", "8", "--max-answer-tokens", "5")
    long_prompt: Any = [{"role": "user", "content": "word " * 50}]
    with pytest.raises(openai.BadRequestError) as refusal:
        operator.front.client(key).chat.completions.create(model="smol", messages=long_prompt)
    assert "this API key may send 8" in refusal.value.message
    with pytest.raises(openai.BadRequestError) as refusal:
        operator.ask(key, max_tokens=6)
    assert refusal.value.code == "answer_too_long"
    assert len(list(operator.ask(key, max_tokens=5, stream=True))) == 5


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_budget(operator: Operator, period: str) -> None:
    key = operator.key(f"poor-{period}", f"--tokens-per-{period}", "200")
    for _ in range(3):
        assert operator.ask(key, max_tokens=50).choices
    with pytest.raises(openai.RateLimitError) as refusal:
        operator.ask(key, max_tokens=100)
    assert refusal.value.code == "insufficient_quota"
    assert 0 < int(refusal.value.response.headers["retry-after"]) <= 31 * 86_400


def test_what_can_never_fit_is_refused_for_good(operator: Operator) -> None:
    key = operator.key("tiny", "--tokens-per-minute", "100")
    with pytest.raises(openai.BadRequestError) as refusal:
        operator.ask(key, max_tokens=5000)
    assert refusal.value.code == "request_exceeds_limit"


def test_other_limits_are_in_force_within_two_seconds_while_a_stream_goes_on(operator: Operator) -> None:
    key = operator.key("changing", "--requests-per-minute", "1")
    stream = iter(operator.ask(key, stream=True, max_tokens=700))
    next(stream)
    with pytest.raises(openai.RateLimitError):
        operator.ask(key)
    operator.keys("limit", "changing", "--requests-per-minute", "50")
    assert operator.ask(key).choices
    assert len(list(stream)) == 699


# Bounds of all requests


def test_a_body_that_nests_too_deep_is_400(operator: Operator) -> None:
    nested = '{"model": "smol", "max_tokens": 1, "messages": ' + "[" * 30 + "]" * 30 + "}"
    response = operator.raw(KEY, nested.encode())
    assert (response.status_code, response.json()["error"]["code"]) == (400, "json_too_deep")
    in_a_string = json.dumps({"model": "smol", "messages": "[" * 500, "max_tokens": 1})
    assert operator.raw(KEY, in_a_string.encode()).status_code == 200


def test_long_headers_are_431(operator: Operator) -> None:
    response = operator.raw(KEY, headers={"x-long": "a" * 20_000})
    assert (response.status_code, response.json()["error"]["code"]) == (431, "headers_too_large")
    assert operator.raw(KEY, headers={"x-long": "a" * 10_000}).status_code == 200


def test_an_answer_that_takes_too_long_ends(operator: Operator) -> None:
    """A whole answer that says nothing in between is silent; a stream has all of the time there is, and no more."""
    with pytest.raises(openai.InternalServerError) as refusal:
        operator.ask(KEY, "other", max_tokens=100)
    assert refusal.value.status_code == 504
    assert refusal.value.code == "gateway_timeout"
    began = time.monotonic()
    with pytest.raises((httpx.RemoteProtocolError, openai.APIError)):
        list(operator.ask(KEY, "other", max_tokens=100, stream=True))
    assert 4 < time.monotonic() - began < 7


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
@pytest.mark.parametrize(("origin", "allowed"), [("https://app.example", True), ("https://evil.example", False)])
def test_only_the_pages_that_are_named_may_call(operator: Operator, method: str, origin: str, allowed: bool) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST", "authorization": f"Bearer {KEY}"}
    url = f"{operator.front.url}/v1/chat/completions"
    body = {"model": "smol", "max_tokens": 1}
    response = httpx.request(method, url, headers=headers, json=body, trust_env=False)
    assert response.headers.get("access-control-allow-origin") == (origin if allowed else None)
    if method == "OPTIONS":
        assert response.status_code == (204 if allowed else 404)


# Restarts


def test_use_and_keys_outlive_a_front_that_is_killed(operator: Operator) -> None:
    key = operator.key("lasting", "--requests-per-minute", "10")
    for _ in range(6):
        assert operator.raw(key).status_code == 200
    eventually(lambda: operator.used("lasting")["requests"] == 6, 5)
    front = operator.front
    assert front.process is not None
    front.process.kill()
    front.process.wait()
    front.start()
    eventually(lambda: front.served("smol"), 5)
    time.sleep(IN_FORCE_S)
    answers = [operator.raw(key).status_code for _ in range(8)]
    assert answers.count(200) == 4
    eventually(lambda: operator.used("lasting")["requests"] == 10, 5)


def test_a_damaged_settings_file_is_one_line(tmp_path: Path) -> None:
    front = FrontProcess(tmp_path)
    front.write_key(KEY)
    (tmp_path / "front.yaml").write_text("cors_origins: ['*']\n")
    ended = subprocess.run(front.command(), capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "cors_origins" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
