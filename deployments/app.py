"""`deployments.app:build`, the import path of every Serve application that `deploy` writes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve

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


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of one service."""
    parsed = AppArgs.model_validate(args)
    deployment = serve.deployment(**deployment_options(parsed.llm_config))(SERVER)
    return deployment.bind(
        parsed.llm_config,
        aliases=parsed.aliases,
        control_url=parsed.control_url,
        auth=bool(parsed.service["access"]["auth"]),
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
