"""A service rendered: what Serve is asked for, as documents that any JSON or YAML reader takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.deploy.render import Rendering, render_application, render_ingress
from orchestrator.deploy.service import make_service

RENDERING = Rendering("/models/m", ("org/M",), False, "http://127.0.0.1:8001", {"max_model_len": 2048}, {})


def rendered(rendering: Rendering = RENDERING, **fields: Any) -> dict[str, Any]:
    return render_application(make_service(model="m", **fields), rendering)


@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (1, 2), (8, 2)])
@pytest.mark.parametrize(("on_gpus", "bundle"), [(True, {"GPU": 1, "CPU": 1}), (False, {"CPU": 1})])
def test_every_rank_has_a_bundle(tensor: int, pipeline: int, on_gpus: bool, bundle: dict[str, int]) -> None:
    engine = {"tensor_parallel_size": tensor, "pipeline_parallel_size": pipeline}
    app = rendered(replace(RENDERING, on_gpus=on_gpus), engine=engine)
    assert app["args"]["llm_config"]["placement_group_config"] == {"bundles": [bundle] * (tensor * pipeline)}


def test_what_the_user_says_wins_over_the_models_defaults() -> None:
    engine = rendered(engine={"max_model_len": 512, "seed": 1})["args"]["llm_config"]["engine_kwargs"]
    assert engine == {"max_model_len": 512, "seed": 1}


def test_the_environment_is_the_users_before_the_models_before_ours() -> None:
    rendering = replace(RENDERING, env_defaults={"VLLM_CPU_CI_ENV": "model", "A": "model"})
    env = rendered(rendering, env={"A": "user", "DO_NOT_TRACK": "0"})["args"]["llm_config"]["runtime_env"]["env_vars"]
    assert (env["A"], env["VLLM_CPU_CI_ENV"], env["DO_NOT_TRACK"]) == ("user", "model", "0")
    assert env["VLLM_NO_USAGE_STATS"] == "1"


def test_the_cpus_switch_is_not_set_on_gpus() -> None:
    env = rendered(replace(RENDERING, on_gpus=True))["args"]["llm_config"]["runtime_env"]["env_vars"]
    assert "VLLM_CPU_CI_ENV" not in env


def test_no_request_passes_through_serves_proxy() -> None:
    assert rendered()["route_prefix"] is None
    assert render_ingress("http://c")["route_prefix"] == "/"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=30)
@given(st.dictionaries(st.text(), json_values, max_size=3), st.dictionaries(st.text(), st.text(), max_size=3))
def test_a_rendering_is_json_and_plain_yaml(overrides: dict[str, Any], env: dict[str, str]) -> None:
    """Plain: without the anchors and aliases that YAML writes for what stands there twice."""
    app = rendered(engine={"hf_overrides": overrides, "tensor_parallel_size": 4}, env=env)
    assert json.loads(json.dumps(app)) == app
    text = yaml.safe_dump(app, sort_keys=False)
    assert yaml.safe_load(text) == app
    assert "bundles:\n      - CPU: 1\n      - CPU: 1\n" in text
