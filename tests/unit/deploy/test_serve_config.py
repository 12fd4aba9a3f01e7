"""Serve's PUT replaces everything: one application changes, and the others stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.deploy.serve_config import (
    ServeProxy,
    comparable,
    current_applications,
    failure,
    with_application,
    without_application,
)
from orchestrator.errors import ConfigError
from tests.unit.deploy.test_render import rendered

names = st.sampled_from(["a", "b", "c", "d"])
statuses = st.sampled_from(["RUNNING", "DEPLOYING", "DEPLOY_FAILED", "UNHEALTHY", "DELETING"])
applications = st.dictionaries(names, st.tuples(statuses, st.integers(), st.booleans()), max_size=4)


def details(apps: dict[str, tuple[str, int, bool]], **rest: Any) -> dict[str, Any]:
    """What Serve tells of itself; an application put by code has no configuration of its own."""
    found = {
        name: {"status": status, "deployed_app_config": {"name": name, "mark": mark} if by_config else None}
        for name, (status, mark, by_config) in apps.items()
    }
    return {"applications": found, **rest}


def put_back(config: dict[str, Any]) -> dict[str, Any]:
    return {app["name"]: app for app in config["applications"]}


@given(applications, names)
def test_putting_one_in_leaves_the_others_as_they_are(apps: dict[str, tuple[str, int, bool]], name: str) -> None:
    before = current_applications(details(apps))
    after = put_back(with_application(details(apps), {"name": name, "mark": "new"}))
    assert after.pop(name) == {"name": name, "mark": "new"}
    before.pop(name, None)
    assert after == before


@given(applications, names)
def test_taking_one_out_leaves_the_others_as_they_are(apps: dict[str, tuple[str, int, bool]], name: str) -> None:
    before = current_applications(details(apps))
    before.pop(name, None)
    assert put_back(without_application(details(apps), name)) == before


@given(applications)
def test_what_is_on_its_way_out_is_not_put_back(apps: dict[str, tuple[str, int, bool]]) -> None:
    kept = current_applications(details(apps))
    assert set(kept) == {name for name, (status, _, by_config) in apps.items() if by_config and status != "DELETING"}


def test_options_of_a_running_serve_are_kept() -> None:
    running = details({}, proxy_location="EveryNode", http_options={"port": 9000}, target_capacity=50.0)
    config = without_application(running, "x")
    assert (config["proxy_location"], config["http_options"], config["target_capacity"]) == (
        "EveryNode", {"port": 9000}, 50.0,
    )  # fmt: skip


def test_a_serve_that_does_not_run_yet_gets_no_proxy() -> None:
    assert with_application({}, {"name": "a"}) == {"proxy_location": "Disabled", "applications": [{"name": "a"}]}


def test_serves_proxy_comes_with_its_ingress_and_only_from_the_start() -> None:
    proxy = ServeProxy("127.0.0.1", 8000, {"name": "_ingress"})
    config = with_application({}, {"name": "a"}, proxy)
    assert [app["name"] for app in config["applications"]] == ["_ingress", "a"]
    assert (config["proxy_location"], config["http_options"]) == ("HeadOnly", {"host": "127.0.0.1", "port": 8000})
    with pytest.raises(ConfigError, match="orchestrator down"):
        with_application({"proxy_location": "Disabled"}, {"name": "a"}, proxy)


def test_what_cannot_be_told_apart_is_no_change() -> None:
    assert comparable(rendered(engine={"seed": 1})) == comparable(rendered(engine={"seed": "1"}))
    assert comparable(rendered(engine={"seed": 1})) != comparable(rendered(engine={"seed": 2}))
    assert comparable(None) == {}


TRACEBACK = """The deployment failed to start 1 times in a row. This may be due to a problem with its constructor or \
initial health check failing. See controller logs for details. Error:
\x1b[36mray::ServeReplica:m:engine.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1, actor_id=1)
  File "/x/ray/serve/_private/replica.py", line 1500, in initialize_and_get_metadata
    raise RuntimeError(traceback.format_exc()) from None
    ~~~~~~~~~~~^^^
RuntimeError: Traceback (most recent call last):
  File "/x/ray/serve/_private/replica.py", line 1480, in initialize
    await self._user_callable_wrapper.initialize_callable()
  File "/x/vllm/config/model.py", line 100, in create
"""


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ("ValueError: No available memory for the cache blocks.\n\n",
         "ValueError: No available memory for the cache blocks."),
        ("1 validation error for ModelConfig\n  Value error, Unknown quantization method: x [type=value_error]\n"
         "    For further information visit https://errors.pydantic.dev/2.12/v/value_error\n",
         "Value error, Unknown quantization method: x [type=value_error]"),
    ],
)  # fmt: skip
def test_the_cause_is_the_last_line_that_says_something(end: str, cause: str) -> None:
    assert failure(TRACEBACK + end) == cause


def test_a_failure_without_words_is_told_as_that() -> None:
    assert failure("") == failure('  File "x", line 1\n') == "(no reason given)"
    assert len(failure("x" * 10_000)) == 500
