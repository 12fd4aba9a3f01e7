"""A service as a Serve application: the YAML that `serve deploy` takes. Pure: dictionaries in, dictionary out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.deploy.placing import Planned, rank_order
from orchestrator.deploy.service import Service
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan

IMPORT_PATH = "deployments.app:build"
# Nobody is told what runs here, unless the service's own `env` says otherwise.
NO_STATISTICS = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
# On the CPU, vLLM 0.29.0's default (graphs through inductor) answers wrongly: asked for the capital of France,
# smol-moe says "L'Étoile, la Marseillaise". The same graphs run as traced, which this switch selects, answer as
# transformers does, and start sooner.
ON_CPU = {"VLLM_CPU_CI_ENV": "1"}
# How long a replica that is to go may take to finish the answers it has begun.
DRAIN_TIMEOUT_S = 300


@dataclass(frozen=True)
class Rendering:
    """What a service needs beside itself to become an application.

    source: folder or Hugging Face id the engine loads; aliases: further names clients may use;
    on_gpus: whether a rank takes a GPU (else a CPU); control_url: where replicas announce themselves.
    """

    source: str
    aliases: tuple[str, ...]
    on_gpus: bool
    control_url: str
    engine_defaults: Mapping[str, Any]
    env_defaults: Mapping[str, str]
    placement: Placement | None = None


@dataclass(frozen=True)
class Placement:
    """Where ranks go: what was planned, and each replica's label selectors, one a rank."""

    planned: Planned
    selectors: Sequence[Sequence[Mapping[str, str]]]


def render_application(service: Service, rendering: Rendering) -> dict[str, Any]:
    """One entry of `applications:` in a Serve configuration."""
    engine = {**rendering.engine_defaults, **service.engine}
    platform = {} if rendering.on_gpus else ON_CPU
    env = {**NO_STATISTICS, **platform, **rendering.env_defaults, **service.env}
    placed: dict[str, Any] = {}
    if (placement := rendering.placement) is not None:
        planned = placement.planned
        if "worker_extension_cls" in service.engine:
            raise ConfigError(f"worker_extension_cls is taken where ranks are planned: {WORKER_EXTENSION} asks them")
        # The model's own defaults stay below the plan's: a pinned revision is one of them.
        engine = {**rendering.engine_defaults, **planned.engine, "worker_extension_cls": WORKER_EXTENSION}
        env |= {**planned.env, **rank_order(planned.plan.parallelism.gpus_per_replica), **service.env}
        placed = {
            "plan": _document(planned.plan),
            "contents": None if planned.contents is planned.plan else _document(planned.contents),
            "selectors": [[dict(selector) for selector in replica] for replica in placement.selectors],
        }
    return {
        "name": service.name,
        "import_path": IMPORT_PATH,
        # No route through Serve's own proxy: the front sends requests straight to the replicas.
        "route_prefix": None,
        "args": {
            "service": service.model_dump(mode="json"),
            "llm_config": _llm_config(service, rendering, engine, env),
            "aliases": list(rendering.aliases),
            "control_url": rendering.control_url,
            **placed,
        },
    }


def _document(plan: Plan) -> dict[str, Any]:
    """The plan as replicas carry it: what was refused along the way stays behind."""
    document: dict[str, Any] = plan.model_copy(update={"rejected": ()}).model_dump(mode="json")
    return document


# Mixed into every rank's worker, so that ranks can tell where they are and what they hold.
WORKER_EXTENSION = "deployments.worker_extension.WorkerExtension"

INGRESS_NAME = "_ingress"


def render_ingress(control_url: str) -> dict[str, Any]:
    """The application that lets requests in through Serve's own proxy, where HAProxy cannot run."""
    args = {"control_url": control_url}
    return {"name": INGRESS_NAME, "import_path": "deployments.serve_ingress:build", "route_prefix": "/", "args": args}


def _llm_config(service: Service, rendering: Rendering, engine: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    """The arguments of `ray.serve.llm.LLMConfig`."""
    if rendering.placement is not None:
        ranks = rendering.placement.planned.plan.parallelism.gpus_per_replica
    else:
        ranks = int(engine.get("tensor_parallel_size", 1)) * int(engine.get("pipeline_parallel_size", 1))
    bundle = {"GPU": 1, "CPU": 1} if rendering.on_gpus else {"CPU": 1}
    return {
        "model_loading_config": {"model_id": service.name, "model_source": rendering.source},
        "engine_kwargs": engine,
        "placement_group_config": {"bundles": [dict(bundle) for _ in range(ranks)]},
        "runtime_env": {"env_vars": env},
        "deployment_config": {
            "num_replicas": service.replicas,
            # The engine queues; Serve itself sees no request and must not limit any.
            "max_ongoing_requests": 1_000_000,
            # An engine that cannot start will not start the second time either: fail at once, with its cause.
            "max_constructor_retry_count": 1,
            "graceful_shutdown_timeout_s": DRAIN_TIMEOUT_S,
            "health_check_period_s": 5,
            "health_check_timeout_s": 30,
            "ray_actor_options": {"num_cpus": 0},
        },
    }
