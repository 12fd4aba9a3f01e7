"""The three HTTP clients of the operator's side: every answer they can get is a value or one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from orchestrator.deploy.clock import Clock
from orchestrator.deploy.front import FrontControl
from orchestrator.deploy.public_api import PublicApi
from orchestrator.deploy.ray_api import RayApi
from orchestrator.errors import ApplyFailed, ClusterUnavailable, OrchestratorError

Handler = Callable[[httpx.Request], httpx.Response]


def answers(status: int = 200, document: Any = None, text: str | None = None) -> Handler:
    def handle(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, text=text) if text is not None else httpx.Response(status, json=document)

    return handle


def away(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def ray(handler: Handler, token: str | None = "t0ken") -> RayApi:  # noqa: S107 - of no cluster
    return RayApi("http://ray:8265/", token, httpx.MockTransport(handler))


CALLS: list[Callable[[RayApi], object]] = [
    RayApi.version, RayApi.nodes, RayApi.free_resources, RayApi.serve_details, RayApi.shutdown_serve,
    lambda api: api.put_applications({}), lambda api: api.log_files("n"),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_dashboard_that_is_away_or_refuses_us_is_one_line(call: Callable[[RayApi], object]) -> None:
    with pytest.raises(ClusterUnavailable, match=r"http://ray:8265 does not answer \(ConnectError\).*--address"):
        call(ray(away))
    for status in (401, 403):
        with pytest.raises(ClusterUnavailable, match="does not accept this token; copy the cluster's token"):
            call(ray(answers(status)))


def test_the_token_is_sent_and_a_missing_one_is_not() -> None:
    sent: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"ray_version": "2.60.0"})

    assert ray(handle).version() == ray(handle, None).version() == "2.60.0"
    assert sent == ["Bearer t0ken", None]


@pytest.mark.parametrize("handler", [answers(text="<html>"), answers(404, {}), answers(200, []), answers(200, "x")])
def test_another_program_on_that_address_is_no_ray(handler: Handler) -> None:
    with pytest.raises(ClusterUnavailable, match="what answers at http://ray:8265 is no Ray dashboard"):
        ray(handler).version()


@pytest.mark.parametrize("url", ["http://[::1", "http://x:y"])
def test_an_address_that_is_none_is_one_line(url: str) -> None:
    with pytest.raises(ClusterUnavailable, match="is no address of a Ray dashboard"):
        RayApi(url, None)


def test_only_live_nodes_count_and_a_young_one_has_no_memory_yet() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/nodes":
            summary = [{"raylet": {"nodeId": "a"}, "mem": [100, 40, 60.0]}, {"raylet": {}}]
            return httpx.Response(200, json={"data": {"summary": summary}})
        rows = [
            {"node_id": "a", "node_ip": "1.1.1.1", "state": "ALIVE", "resources_total": {"CPU": 2.0, "GPU": 8.0}},
            {"node_id": "b", "node_ip": "2.2.2.2", "state": "ALIVE", "resources_total": {}},
            {"node_id": "c", "node_ip": "3.3.3.3", "state": "DEAD", "resources_total": {}},
        ]
        return httpx.Response(200, json={"data": {"result": {"result": rows}}})

    a, b = ray(handle).nodes()
    assert (a.num_gpus, a.memory_total_bytes, a.memory_available_bytes) == (8, 100, 40)
    assert (b.num_gpus, b.memory_total_bytes, b.describe()) == (0, None, "2.2.2.2: ")
    assert a.describe() == "1.1.1.1: CPU 2, GPU 8, 40 B free of 100 B"


def test_free_is_total_less_used() -> None:
    """Of all live nodes; what Ray has not told of yet is in no use."""
    row = {"node_id": "a", "node_ip": "1.1.1.1", "state": "ALIVE", "resources_total": {"CPU": 4.0, "GPU": 8.0}}

    def cluster(status: Any) -> RayApi:
        def handle(request: httpx.Request) -> httpx.Response:
            data = {
                "/nodes": {"summary": []},
                "/api/v0/nodes": {"result": {"result": [row, {**row, "node_id": "b"}]}},
                "/api/cluster_status": {"clusterStatus": status},
            }
            return httpx.Response(200, json={"data": data[request.url.path]})

        return ray(handle)

    used = {"loadMetricsReport": {"usage": {"CPU": ["1.5", "4"]}}}
    assert cluster(used).free_resources() == {"CPU": 6.5, "GPU": 16.0}
    assert cluster(None).free_resources() == {"CPU": 8.0, "GPU": 16.0}


def test_a_refused_configuration_tells_why_and_no_link() -> None:
    complaint = "1 validation error\napplications.0\n  bad name\n    For further information visit https://x\n"
    with pytest.raises(ApplyFailed, match=r"Ray Serve refused the configuration: bad name$"):
        ray(answers(400, text=complaint)).put_applications({})


def test_a_log_that_is_not_there_is_an_error_not_a_line() -> None:
    assert list(ray(answers(text="a\nb\n")).stream_log("n", "f", 10, False)) == ["a", "b"]
    with pytest.raises(ClusterUnavailable, match="cannot read the log f: no such file"):
        list(ray(answers(500, text="no such file")).stream_log("n", "f", 10, False))


# The front's inner door


@pytest.fixture
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")


@pytest.mark.usefixtures("_token")
def test_a_front_that_is_away_or_refuses_us_is_one_line() -> None:
    calls: list[Callable[[FrontControl], object]] = [
        lambda control: control.events("m", 0), FrontControl.deployments, lambda control: control.forget("m"),
    ]  # fmt: skip
    for handler in (away, answers(401), answers(500)):
        control = FrontControl("http://front", httpx.MockTransport(handler))
        for call in calls:
            with pytest.raises(ApplyFailed, match="the front does not answer"):
                call(control)


@pytest.mark.usefixtures("_token")
def test_the_front_is_asked_with_a_token_that_is_not_rays_own() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"deployments": [], "events": []})

    control = FrontControl("http://front", httpx.MockTransport(handle))
    control.events("m", 3, 0.5)
    control.forget("m")
    assert dict(seen[0].url.params) == {"deployment": "m", "after": "3", "wait_s": "0.5"}
    assert (seen[1].method, seen[1].url.path) == ("DELETE", "/deployments/m")
    assert seen[0].headers["authorization"] not in ("Bearer token", "")


# The public path


def public(handler: Handler, key: str | None = "k", times: list[float] | None = None) -> PublicApi:
    ticks = iter(times or [0.0] * 1000)
    clock = Clock(monotonic_s=lambda: next(ticks), sleep=lambda _seconds: None)
    return PublicApi("http://front/v1", key, httpx.MockTransport(handler), clock)


def sse(*events: str) -> Handler:
    return answers(text="".join(f"data: {event}\n\n" for event in events))


def delta(text: Any) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}}]})


def test_the_first_token_is_waited_for() -> None:
    replies = iter([404, 503, None, 502, 200])

    def handle(request: httpx.Request) -> httpx.Response:
        status = next(replies)
        return away(request) if status is None else httpx.Response(status)

    waits: list[int] = []
    public(handle).first_token("m", 10, lambda: waits.append(1))
    assert len(waits) == 4


def test_an_answer_that_never_comes_is_told_at_the_deadline() -> None:
    with pytest.raises(ApplyFailed, match="m is up but gave no token in time; see: orchestrator logs m"):
        public(answers(503), times=[0, 5, 11]).first_token("m", 10, lambda: None)


def test_a_refusal_of_the_first_token_is_told_at_once() -> None:
    refusal = {"error": {"message": "Incorrect API key provided."}}
    with pytest.raises(ApplyFailed, match="m refuses its first request: 401: Incorrect API key"):
        public(answers(401, refusal)).first_token("m", 10, lambda: None)
    with pytest.raises(ApplyFailed, match="HTTP status 500"):
        public(answers(500, text="<html>")).first_token("m", 10, lambda: None)


def test_a_chat_gives_the_text_as_it_comes() -> None:
    handler = sse(
        delta("The "), delta(None), '{"choices": []}', '{"choices": [{"delta": null}]}', delta("end"), "[DONE]"
    )
    assert list(public(handler).chat("m", [])) == ["The ", "end"]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (sse(delta("a"), '{"error": {"message": "engine died"}}'), "engine died"),
        (sse(delta("a"), '{"error": "engine died"}'), "engine died"),
        (sse("{"), "no event"),
        (sse("[1]"), "no event"),
        (answers(404, {"error": {"message": "The model `m` does not exist."}}), "404: The model `m` does not exist."),
        (answers(502, text="x"), "HTTP status 502"),
        (answers(400, {"error": None}), "HTTP status 400"),
        (away, r"the answer broke off \(ConnectError\)"),
    ],
)
def test_a_chat_that_fails_is_one_line(handler: Handler, message: str) -> None:
    with pytest.raises(OrchestratorError, match=message):
        list(public(handler).chat("m", []))
