"""HAProxy's configuration as text: names it can read, pages that are whole HTTP, and no secret anywhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from http.client import HTTPResponse
from io import BytesIO
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deployments.front.haproxy_config import (
    ENGINE_PATHS,
    LONG_HEADERS_PATH,
    FrontSettings,
    backend_name,
    error_pages,
    render_config,
    render_map,
)
from deployments.front.messages import Heartbeat
from deployments.front.registry import Registry
from tests.unit.front.test_registry import said

SETTINGS = FrontSettings("127.0.0.1", 8000, 1000)
PAGES = {path: page for path, page in error_pages(SETTINGS).items() if path != LONG_HEADERS_PATH}


def config(*announced: Any) -> str:
    registry = Registry()
    for each in announced:
        registry.announce(each, 0, 0)
    return render_config(SETTINGS, registry.deployments.values())


@given(st.text(min_size=1))
def test_a_backends_name_is_one_word_of_haproxys_alphabet(deployment: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.:-]+", backend_name(deployment))


def test_no_two_deployments_share_a_backend() -> None:
    names = ["a", "A", "a-b", "a.b", "a_b", "ab"]
    assert len({backend_name(name) for name in names}) == len(names)


def test_every_replica_is_a_server_of_its_models_backend() -> None:
    text = config(said("m", "r1", port=9001), said("m", "r2", port=9002), said("n", "r3", host="10.0.0.7"))
    backends = {block.split("\n")[0]: block for block in text.split("backend ")[1:]}
    assert re.findall(r"    server (\S+) (\S+)", backends[backend_name("m")]) == [
        ("r1", "127.0.0.1:9001"), ("r2", "127.0.0.1:9002"),
    ]  # fmt: skip
    assert re.findall(r"    server (\S+) (\S+)", backends[backend_name("n")]) == [("r3", "10.0.0.7:9000")]


def test_a_model_without_replicas_keeps_its_backend() -> None:
    registry = Registry()
    registry.announce(said(), 0, 0)
    registry.withdraw("r1")
    text = render_config(SETTINGS, registry.deployments.values())
    assert f"backend {backend_name('m')}" in text
    assert "server r1" not in text


def test_the_map_leads_every_name_to_a_backend_that_is_there() -> None:
    registry = Registry()
    registry.announce(said("m", "r1", "org/M"), 0, 0)
    lines = [line.split(" ") for line in render_map(registry.routes()).splitlines()]
    assert lines == [["m", backend_name("m")], ["org/M", backend_name("m")]]


def test_nothing_of_the_engines_inside_is_let_through() -> None:
    inside = {"/metrics", "/health", "/docs", "/v1/models", "/v1/load_lora_adapter", "/sleep", "/", "/invocations"}
    assert not inside & set(ENGINE_PATHS)


def test_no_statistics_page_and_no_secret_in_the_configuration() -> None:
    text = config(said()).lower()
    assert "stats" not in text
    assert "bearer" not in text
    assert "moe-" not in text
    assert [line.strip() for line in text.splitlines() if "bind" in line] == ["bind 127.0.0.1:8000"]


@pytest.mark.parametrize(("path", "page"), PAGES.items(), ids=[str(path) for path in PAGES])
def test_an_error_page_is_a_whole_http_response_in_openais_shape(path: Any, page: bytes) -> None:
    class Connection:
        def makefile(self, _mode: str) -> BytesIO:
            return BytesIO(page)

    response = HTTPResponse(cast(Any, Connection()))
    response.begin()
    body = response.read()
    assert f"{response.status}.http" == path.name
    assert response.getheader("content-length") == str(len(body))
    assert page.endswith(body)
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
    assert (response.getheader("retry-after") is not None) == (response.status == 503)


def test_long_headers_are_refused_in_openais_shape() -> None:
    document = json.loads(error_pages(SETTINGS)[LONG_HEADERS_PATH])
    assert document["error"]["code"] == "headers_too_large"
    assert f"file {LONG_HEADERS_PATH} if long_headers" in config()


def test_other_origins_are_allowed_only_where_they_are_named() -> None:
    assert "del-header access-control- -m beg" in config()
    assert "set-header access-control-allow-origin" not in config()
    named = render_config(replace(SETTINGS, cors_origins=("https://a.example",)), [])
    assert "req.hdr(origin) -m str https://a.example }" in named


def test_every_error_page_is_named_in_the_configuration() -> None:
    named = re.findall(r"errorfile (\d+) (\S+)", config())
    assert {file for _, file in named} == {str(path) for path in PAGES}
    assert all(file == f"{status}.http" for status, file in named)


GOOD = {"deployment": "m", "replica": "r1", "names": ["m", "org/M-1.5_b"], "host": "::1", "port": 1, "auth": True,
        "max_model_len": 1, "created": 1, "in_flight": 0}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"names": ["m", word]} for word in ("", " ", "a b", "#a", "a\n", "a\tb", "a;b", "é", "x" * 256)]
    + [{"replica": word} for word in ("", "r 1", "r#1", "r\n", "r/1")]
    + [{"host": word} for word in ("", "a b", "h\nserver x", "h/")]
    + [{"names": []}, {"port": 0}, {"port": 65536}, {"deployment": "a b"}, {"token": "x"}],
)
def test_only_what_haproxys_files_can_hold_is_announced(change: dict[str, Any]) -> None:
    Heartbeat.model_validate(GOOD)
    with pytest.raises(ValidationError):
        Heartbeat.model_validate({**GOOD, **change})
