"""`deployments.app:build`, the import path of every Serve application that `deploy` writes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

from deployments.rank_map import RankPlan

# By name, not by import: the process that builds the application need not load the engine, which takes as long as
# the whole rest of its work. Serve imports the class where it runs.
SERVER = "deployments.server.MoEServer"


class AppArgs(BaseModel):
    """What `orchestrator.deploy.render` puts under `args:`. `llm_config` holds the arguments of `LLMConfig`."""

    model_config = ConfigDict(extra="forbid")

    service: dict[str, Any]
    llm_config: dict[str, Any]
    aliases: list[str]
    control_url: str
    # A plan, that of what the ranks hold where it is another, and each replica's label selectors, one a rank.
    plan: dict[str, Any] | None = None
    contents: dict[str, Any] | None = None
    selectors: list[list[dict[str, str]]] | None = None


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of one service.

    Planned replicas are deployments of their own: each has its nodes, and Serve knows one placement a deployment.
    """
    parsed = AppArgs.model_validate(args)
    if parsed.selectors is None:
        return _bind(parsed, **deployment_options(parsed.llm_config))
    first, *others = reversed(list(enumerate(parsed.selectors)))
    app = _bind_planned(parsed, *first)
    for index, selectors in others:
        app = _bind_planned(parsed, index, selectors, app)
    return app


def _bind_planned(
    parsed: AppArgs, index: int, selectors: list[dict[str, str]], *siblings: serve.Application
) -> serve.Application:
    options = deployment_options(parsed.llm_config)
    name = options["name"] if index == 0 else f"{options['name']}-{index}"
    placement = {"name": name, "num_replicas": 1, "placement_group_bundle_label_selector": selectors}
    return _bind(parsed, *siblings, plan=RankPlan(index, parsed.plan or {}, parsed.contents), **options | placement)


def _bind(
    parsed: AppArgs, *siblings: serve.Application, plan: RankPlan | None = None, **options: Any
) -> serve.Application:
    # Serve knows an application by its first deployment, and deploys what is bound to it along with it.
    return serve.deployment(**options)(SERVER).bind(
        parsed.llm_config,
        *siblings,
        aliases=parsed.aliases,
        control_url=parsed.control_url,
        auth=bool(parsed.service["access"]["auth"]),
        plan=plan,
    )


def deployment_options(llm_config: dict[str, Any]) -> dict[str, Any]:
    """Serve's options for one `LLMConfig`, as Ray's `LLMServer.get_deployment_options` makes them (a test compares).

    Left out is the hook by which Ray has every process of a replica import its LLM library first, for its log format.
    The replica's own actor shares the first rank's bundle.
    """
    config = llm_config["deployment_config"]
    actor = config["ray_actor_options"]
    first, *others = [dict(bundle) for bundle in llm_config["placement_group_config"]["bundles"]]
    own = {"CPU": actor["num_cpus"], "GPU": 0}
    return {
        **config,
        "name": "engine",
        "ray_actor_options": {**actor, "runtime_env": llm_config["runtime_env"]},
        "placement_group_bundles": [
            {key: first.get(key, 0) + own.get(key, 0) for key in {**first, **own}},
            *others,
        ],
        "placement_group_strategy": llm_config["placement_group_config"].get("strategy", "PACK"),
    }
