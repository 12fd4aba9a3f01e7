"""The front through OpenAI's own client: routing, refusals, and faults on every side of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import openai
import psutil
import pytest

from deployments.front.haproxy_config import BUFFER_BYTES, ENGINE_PATHS
from tests.serve.front_process import KEY, FrontProcess, eventually

pytestmark = pytest.mark.serve


def raw(front: FrontProcess, data: bytes, timeout_s: float = 5.0) -> bytes:
    """Bytes over a bare connection; what comes back until it closes or falls silent."""
    answer = b""
    connection = socket.create_connection(("127.0.0.1", front.port), timeout=timeout_s)
    with connection, contextlib.suppress(OSError):
        connection.sendall(data)
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


def post(front: FrontProcess, content: bytes, path: str = "/v1/chat/completions", key: str = KEY) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    return httpx.post(front.url + path, content=content, headers=headers, trust_env=False, timeout=20)


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error of an answer in OpenAI's shape."""
    document = response.json()
    assert set(document) == {"error"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    error: dict[str, object] = document["error"]
    return error


# Routing


@pytest.mark.parametrize(("model", "replicas"), [("smol", "smol-"), ("org/Smol", "smol-"), ("open", "open-")])
def test_a_request_goes_to_a_replica_of_the_model_it_names(
    shared_front: FrontProcess, model: str, replicas: str
) -> None:
    assert shared_front.ask(model).system_fingerprint.startswith(replicas)


def test_requests_are_spread_over_the_replicas(shared_front: FrontProcess) -> None:
    answered = Counter(shared_front.ask("smol").system_fingerprint for _ in range(10))
    assert set(answered) == {"smol-1", "smol-2"}


def test_the_model_may_stand_anywhere_in_the_body(shared_front: FrontProcess) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": '{"model": "open"}'}], "model": "smol"})
    assert post(shared_front, body.encode()).json()["system_fingerprint"].startswith("smol-")


@pytest.mark.parametrize("size_bytes", [BUFFER_BYTES - 300, BUFFER_BYTES, 3 * BUFFER_BYTES])
def test_a_body_longer_than_a_buffer_arrives_whole(shared_front: FrontProcess, size_bytes: int) -> None:
    """The model is named after the messages, so that no buffer holds both."""
    body = json.dumps({"messages": [{"role": "user", "content": "x" * size_bytes}], "model": "smol"}).encode()
    answer = post(shared_front, body).json()
    assert answer["choices"][0]["message"]["content"] == f"{len(body)} bytes"


def test_an_answer_streams_as_it_is_made(shared_front: FrontProcess) -> None:
    """Twenty chunks made over 0.4 s must not arrive together."""
    started = time.monotonic()
    arrivals = [time.monotonic() - started for _ in shared_front.ask("smol", max_tokens=20, stream=True)]
    assert len(arrivals) == 20
    assert arrivals[0] < arrivals[-1] / 2
    assert arrivals[-1] > 0.3


def test_a_long_body_streams_too(shared_front: FrontProcess) -> None:
    body = {"messages": [{"content": "x" * 2 * BUFFER_BYTES}], "stream": True, "max_tokens": 20, "model": "smol"}
    headers = {"authorization": f"Bearer {KEY}"}
    arrivals = []
    with httpx.stream(
        "POST", f"{shared_front.url}/v1/chat/completions", json=body, headers=headers, trust_env=False
    ) as answer:
        arrivals = [time.monotonic() for line in answer.iter_lines() if line]
    assert len(arrivals) == 21
    assert arrivals[-1] - arrivals[0] > 0.2


def test_a_body_above_the_limit_is_refused_with_413(shared_front: FrontProcess) -> None:
    for head in (b'{"model": "smol", "messages": "', b'{"messages": "'):
        body = head + b"x" * (64 * 1024 * 1024) + b'"}'
        response = post(shared_front, body)
        assert response.status_code == 413
        assert error_of(response)["code"] == "request_too_large"


# Who is let in, and who is not


def test_models_are_listed_with_the_key(shared_front: FrontProcess) -> None:
    assert {model.id for model in shared_front.client().models.list()} == {"smol", "open"}


def test_without_the_key_only_open_models_are_listed(shared_front: FrontProcess) -> None:
    assert [model.id for model in shared_front.client("not-needed").models.list()] == ["open"]


def test_a_model_is_found_by_name_and_alias(shared_front: FrontProcess) -> None:
    assert shared_front.client().models.retrieve("smol").id == "smol"
    assert shared_front.client().models.retrieve("org/Smol").id == "org/Smol"


def test_a_model_without_auth_is_reached_by_any_key_and_by_none(shared_front: FrontProcess) -> None:
    assert shared_front.ask("open", key="not-needed").choices
    body = {"model": "open", "messages": []}
    assert httpx.post(f"{shared_front.url}/v1/chat/completions", json=body, trust_env=False).status_code == 200


@pytest.mark.parametrize("padding", [0, 2 * BUFFER_BYTES])
def test_a_wrong_key_is_401_whichever_way_the_body_takes(shared_front: FrontProcess, padding: int) -> None:
    with pytest.raises(openai.AuthenticationError) as refusal:
        shared_front.ask("smol", key="moe-wrong", extra_body={"a" * (padding or 1): 1})
    assert refusal.value.code == "invalid_api_key"
    body = {"messages": "x" * padding, "model": "smol"}
    keyless = httpx.post(f"{shared_front.url}/v1/chat/completions", json=body, trust_env=False)
    assert keyless.status_code == 401
    assert error_of(keyless)["code"] == "missing_api_key"
    assert keyless.headers["www-authenticate"] == "Bearer"


def test_a_wrong_key_is_401_when_one_model_is_asked_about(shared_front: FrontProcess) -> None:
    with pytest.raises(openai.AuthenticationError):
        shared_front.client("moe-wrong").models.retrieve("smol")


@pytest.mark.parametrize("key", [KEY, "not-needed"])
def test_an_unknown_model_is_404(shared_front: FrontProcess, key: str) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        shared_front.ask("gpt-7", key=key)
    assert refusal.value.code == "model_not_found"
    assert "gpt-7" in refusal.value.message
    with pytest.raises(openai.NotFoundError):
        shared_front.client(key).models.retrieve("gpt-7")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'\xff\xfe{"model": "smol"}', "invalid_json"),
        (b'{"model": "\xff"}', "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 50_000, "invalid_json"),
        (b"NaN", "missing_model"),
        (b"null", "missing_model"),
        (b"[1]", "missing_model"),
        (b'{"model": NaN}', "missing_model"),
        (b'{"model": 5}', "missing_model"),
        (b'{"model": ""}', "missing_model"),
        (b'{"model": ["smol"]}', "missing_model"),
        (b'{"messages": []}', "missing_model"),
    ],
)  # fmt: skip
def test_a_body_that_names_no_model_is_400(shared_front: FrontProcess, body: bytes, code: str) -> None:
    response = post(shared_front, body)
    assert response.status_code == 400
    assert error_of(response)["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "smol", "a":' + b"[" * 100_000,
        b'{"model": "smol", "a": "\xff"}',
        b'{"model": "smol", "temperature": NaN, }',
        b'{"model": "smol"',
    ],
)
def test_broken_json_that_names_a_model_is_never_a_failure_of_ours(shared_front: FrontProcess, body: bytes) -> None:
    assert post(shared_front, body).status_code == 400


@pytest.mark.parametrize("model", ["\ud800", "a b", "smol\n", "../smol", "%s%n", "x" * 5000, "*", "model_"])
def test_odd_model_names_are_404(shared_front: FrontProcess, model: str) -> None:
    response = post(shared_front, json.dumps({"model": model}).encode())
    assert response.status_code == 404
    assert error_of(response)["code"] == "model_not_found"


# What does not get through


INNER_PATHS = """
    /metrics /docs /openapi.json /load /version /v1/load_lora_adapter /sleep /state /events /replicas
    /V1/chat/completions /v1//chat/completions /v1/chat/completions/ /v1/chat/completions/../../../metrics //metrics
    /reset_prefix_cache /%2e%2e/metrics /v1/models/../../metrics /haproxy?stats
"""


@pytest.mark.parametrize("path", INNER_PATHS.split())
def test_no_path_but_the_engines_own_reaches_a_replica(shared_front: FrontProcess, path: str) -> None:
    for method in ("GET", "POST", "PUT"):
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
        body = b'{"model": "smol"}'
        answer = raw(shared_front, f"{request}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert answer.split()[1] in (b"404", b"405"), answer[:300]
        assert b"reached" not in answer


@pytest.mark.parametrize("path", ENGINE_PATHS)
def test_engine_paths_take_post_only(shared_front: FrontProcess, path: str) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    assert post(shared_front, b'{"model": "smol"}', path).status_code == 200
    for method in ("GET", "DELETE", "HEAD", "OPTIONS", "TRACE"):
        response = httpx.request(method, shared_front.url + path, headers=headers, trust_env=False)
        assert response.status_code in (404, 405), method


def test_health_needs_no_key_and_tells_nothing(shared_front: FrontProcess) -> None:
    response = httpx.get(f"{shared_front.url}/health", trust_env=False)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer wrong", f"Bearer {KEY}", "Basic eDp5"])
def test_the_control_door_opens_to_its_token_only(shared_front: FrontProcess, authorization: str | None) -> None:
    headers = {"authorization": authorization} if authorization else {}
    doors = [
        ("GET", "/state"), ("GET", "/events?deployment=smol&after=0"), ("POST", "/events"),
        ("POST", "/replicas"), ("DELETE", "/replicas/smol-1"), ("DELETE", "/deployments/smol"), ("GET", "/docs"),
    ]  # fmt: skip
    for method, path in doors:
        response = httpx.request(method, shared_front.control_url + path, headers=headers, trust_env=False)
        assert response.status_code in (401, 404), path
    assert shared_front.served("smol")


def test_a_bad_announcement_is_refused_and_hurts_nobody(shared_front: FrontProcess) -> None:
    good = {"deployment": "bad", "replica": "r", "names": ["bad"], "host": "127.0.0.1", "port": 9, "auth": True,
            "max_model_len": 1, "created": 1, "in_flight": 0}  # fmt: skip
    wrong: list[dict[str, object]] = [
        {"replica": "r#1"}, {"replica": "r 1"}, {"replica": ""}, {"replica": "r\n"}, {"host": "a b"}, {"port": 0},
        {"names": ["bad", "two words"]}, {"names": ["bad\nsmol model_x"]}, {"names": ["#bad"]}, {"names": []},
        {"deployment": "a b"}, {"extra": 1},
    ]  # fmt: skip
    for change in wrong:
        response = shared_front.control("POST", "/replicas", json={**good, **change})
        assert response.status_code == 422, change
    assert shared_front.served("smol")


# Broken clients


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_http_is_400(shared_front: FrontProcess, data: bytes) -> None:
    assert raw(shared_front, data).split()[1] == b"400"


def test_an_upload_that_breaks_off_hurts_nobody(shared_front: FrontProcess) -> None:
    with socket.create_connection(("127.0.0.1", shared_front.port)) as connection:
        connection.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"model": "smol"')
    assert shared_front.served("smol")


def test_slow_uploads_keep_nobody_waiting(shared_front: FrontProcess) -> None:
    """Two hundred bodies that never end, and others are served as fast as before."""
    head = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"model": "smol"'
    with contextlib.ExitStack() as slow:
        for _ in range(200):
            connection = slow.enter_context(socket.create_connection(("127.0.0.1", shared_front.port)))
            connection.sendall(head)
        started = time.monotonic()
        assert shared_front.served("smol")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("padding", [0, 2 * BUFFER_BYTES])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_the_replica(shared_front: FrontProcess, stream: bool, padding: int) -> None:
    """Nobody reads on: the engine must not go on writing, neither behind HAProxy nor behind the ingress."""
    body = json.dumps({"a": "x" * padding, "model": "open", "max_tokens": 1000, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", shared_front.port)) as connection:
        connection.sendall(head.encode() + body)
        eventually(lambda: shared_front.in_flight("open") == 1)
    eventually(lambda: shared_front.in_flight("open") == 0, 4)


def test_no_key_is_in_the_fronts_folder(shared_front: FrontProcess) -> None:
    """Neither the key nor the control token: HAProxy's configuration may be read by whoever looks for a fault."""
    for path in (shared_front.folder / "front").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()


# Replicas and fronts that come and go


def test_a_model_whose_replica_left_is_503_until_it_is_back(shared_front: FrontProcess, name: str) -> None:
    front = shared_front
    replica = front.add_replica(name, f"{name}-1")
    assert front.served(name)
    replica.terminate()
    assert replica.wait(10) == 0
    with pytest.raises(openai.InternalServerError) as refusal:
        front.ask(name)
    assert refusal.value.status_code == 503
    assert refusal.value.code == "unavailable"
    assert int(refusal.value.response.headers["retry-after"]) > 0
    long_body = json.dumps({"messages": "x" * 2 * BUFFER_BYTES, "model": name}).encode()
    response = post(front, long_body)
    assert (response.status_code, error_of(response)["code"]) == (503, "unavailable")
    assert int(response.headers["retry-after"]) > 0
    front.add_replica(name, f"{name}-2")
    assert front.served(name)


def test_a_replica_leaves_without_losing_a_request(shared_front: FrontProcess, name: str) -> None:
    """While requests keep coming, a replica goes in order: each of them is answered."""
    front = shared_front
    leaving = front.add_replica(name, f"{name}-1")
    front.add_replica(name, f"{name}-2")
    stop, lost = threading.Event(), []

    def ask() -> None:
        try:
            front.ask(name, max_tokens=3)
        except openai.APIError as error:
            lost.append(error)

    def keep_asking() -> None:
        while not stop.is_set():
            ask()

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    time.sleep(0.3)
    leaving.terminate()
    assert leaving.wait(10) == 0
    time.sleep(0.5)
    stop.set()
    for asker in askers:
        asker.join()
    assert lost == []


def test_when_a_replica_is_killed_the_other_takes_over(shared_front: FrontProcess, name: str) -> None:
    killed = shared_front.add_replica(name, f"{name}-1")
    shared_front.add_replica(name, f"{name}-2")
    assert {shared_front.ask(name).system_fingerprint for _ in range(4)} == {f"{name}-1", f"{name}-2"}
    killed.kill()
    killed.wait()
    assert {shared_front.ask(name).system_fingerprint for _ in range(6)} == {f"{name}-2"}


@pytest.mark.parametrize("padding", [0, 2 * BUFFER_BYTES])
def test_a_stream_whose_replica_is_killed_breaks_off(shared_front: FrontProcess, name: str, padding: int) -> None:
    """A client must not take half an answer for a whole one."""
    replica = shared_front.add_replica(name, f"{name}-1")
    body = {"messages": "x" * padding, "model": name, "max_tokens": 1000, "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"{shared_front.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        replica.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)


def test_new_routes_do_not_break_a_stream(shared_front: FrontProcess, name: str) -> None:
    shared_front.add_replica(name, f"{name}-1", "--interval", "0.05")
    stream = iter(shared_front.ask(name, max_tokens=60, stream=True))
    next(stream)
    shared_front.add_replica(name, f"{name}-2")
    shared_front.replicas[f"{name}-2"].terminate()
    shared_front.replicas[f"{name}-2"].wait(10)
    assert len(list(stream)) == 59


def test_a_new_key_is_in_force_within_two_seconds(front: FrontProcess) -> None:
    front.add_replica("smol", "smol-1", "--interval", "0.05")
    eventually(lambda: front.served("smol"))
    stream = iter(front.ask("smol", max_tokens=70, stream=True))
    next(stream)
    front.write_key("moe-new")
    time.sleep(2)
    asks: list[Callable[[str], object]] = [
        lambda key: front.ask("smol", key=key),
        lambda key: front.client(key).models.list(),
    ]
    for ask in asks:
        assert ask("moe-new")
        with pytest.raises(openai.AuthenticationError):
            ask(KEY)
    assert len(list(stream)) == 69


def test_without_a_readable_key_nobody_is_let_in(front: FrontProcess) -> None:
    """The front lives on, and a key that comes back is accepted again."""
    headers = {"authorization": f"Bearer {KEY}"}

    def let_in() -> bool:
        return httpx.get(f"{front.url}/v1/models", headers=headers, trust_env=False).status_code == 200

    for content in (b"", b"\xff\xfe\x00"):
        assert let_in()
        front.key_path.write_bytes(content)
        eventually(lambda: not let_in(), 2)
        front.write_key(KEY)
        eventually(let_in, 2)
    front.key_path.unlink()
    eventually(lambda: not let_in(), 2)


def test_a_killed_front_starts_again_in_its_folder(front: FrontProcess) -> None:
    """The HAProxy it leaves behind serves on meanwhile, and is gone afterwards."""
    front.add_replica("smol", "smol-1")
    eventually(lambda: front.served("smol"))
    leftover = front.family()[1:]
    assert front.process is not None
    front.process.kill()
    front.process.wait()
    front.start()
    eventually(lambda: front.served("smol"), 5)
    psutil.wait_procs(leftover, timeout=3)
    assert [process for process in leftover if process.is_running()] == []


def test_haproxy_that_dies_is_started_again(front: FrontProcess) -> None:
    front.add_replica("smol", "smol-1")
    eventually(lambda: front.served("smol"))
    os.kill(front.family()[1].pid, signal.SIGKILL)
    time.sleep(0.2)
    eventually(lambda: front.served("smol"), 5)


def test_a_stopped_front_leaves_no_process(front: FrontProcess) -> None:
    front.add_replica("smol", "smol-1")
    eventually(lambda: front.served("smol"))
    family = front.family()
    assert len(family) >= 3
    started = time.monotonic()
    assert front.process is not None
    front.process.terminate()
    assert front.process.wait(10) == 0
    _, alive = psutil.wait_procs(family, timeout=3)
    assert alive == []
    assert time.monotonic() - started < 5


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("door", ["port", "control_port"])
def test_a_taken_port_is_one_clear_line(tmp_path_factory: pytest.TempPathFactory, taken_port: int, door: str) -> None:
    front = FrontProcess(tmp_path_factory.mktemp("taken"))
    setattr(front, door, taken_port)
    front.write_key(KEY)
    ended = subprocess.run(front.command(), capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stderr.startswith("error: ")
    assert str(taken_port) in ended.stderr
