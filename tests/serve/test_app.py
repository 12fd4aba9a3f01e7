"""What `deploy` writes is what Serve builds: the import path resolves, and Serve's options are Ray's own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.deploy.render import IMPORT_PATH
from tests.unit.deploy.test_render import RENDERING, rendered

pytestmark = pytest.mark.serve


def test_the_import_path_leads_to_an_application() -> None:
    from ray._common.utils import import_attr

    application = import_attr(IMPORT_PATH)(rendered()["args"])
    assert application._bound_deployment.name == "engine"


def test_serves_options_are_those_of_rays_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made here without loading the engine library, which is the point; made by Ray they must be the same.

    But for one hook, which does nothing itself: to have it, every process of the replica imports Ray's LLM library.
    """
    import ray
    from ray.serve.llm import LLMConfig
    from ray.serve.llm.deployment import LLMServer

    from deployments.app import deployment_options

    # Asked outside a cluster, Ray would look for one to join.
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    for on_gpus, ranks in ((False, 1), (False, 4), (True, 1), (True, 4)):
        app = rendered(replace(RENDERING, on_gpus=on_gpus), engine={"tensor_parallel_size": ranks})
        config: dict[str, Any] = app["args"]["llm_config"]
        ours, theirs = deployment_options(config), LLMServer.get_deployment_options(LLMConfig(**config))
        hook = theirs["ray_actor_options"]["runtime_env"].pop("worker_process_setup_hook")
        assert hook == "ray.llm._internal.serve._worker_process_setup_hook"
        assert {key: ours.get(key) for key in theirs} == theirs


def test_planned_replicas_are_deployments_of_their_own_each_on_its_nodes() -> None:
    """One application all the same: what is bound to the first deployment is deployed with it."""
    from ray._common.utils import import_attr

    from tests.unit.deploy.test_placing import application, two_replicas

    built = import_attr(IMPORT_PATH)(application(two_replicas())["args"])
    first = built._bound_deployment
    (second,) = [each._bound_deployment for each in first.init_args[1:]]
    assert [first.name, second.name] == ["engine", "engine-1"]
    for deployment, node, index in ((first, "id-a", 0), (second, "id-b", 1)):
        selector = deployment._replica_config.placement_group_bundle_label_selector
        assert selector == [{"ray.io/node-id": node}] * 4
        assert len(deployment._replica_config.placement_group_bundles) == 4
        assert deployment._deployment_config.num_replicas == 1
        assert deployment.init_kwargs["plan"].replica == index
