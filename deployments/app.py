"""`deployments.app:build`, the import path of every Serve application that `deploy` writes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from deployments.server import MoEServer, replica_environment


class AppArgs(BaseModel):
    """What `orchestrator.deploy.render` puts under `args:`."""

    model_config = ConfigDict(extra="forbid")

    service: dict[str, Any]
    llm_config: dict[str, Any]
    aliases: list[str]
    control_url: str


def build(args: dict[str, Any]) -> serve.Application:
    """The Serve application of one service: replicas of `MoEServer`, placed as the LLMConfig says."""
    parsed = AppArgs.model_validate(args)
    config = LLMConfig(**parsed.llm_config)
    environment = (config.runtime_env or {}).get("env_vars", {})
    config.runtime_env = {"env_vars": {**replica_environment(), **environment}}
    options = {**LLMServer.get_deployment_options(config), "name": "engine"}
    return (
        serve.deployment(MoEServer)
        .options(**options)
        .bind(
            config,
            aliases=parsed.aliases,
            control_url=parsed.control_url,
            auth=bool(parsed.service["access"]["auth"]),
        )
    )
