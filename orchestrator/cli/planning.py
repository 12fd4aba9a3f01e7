"""A service planned onto a cluster as it is now: what `deploy` needs of the planner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.catalog.entries import CatalogEntry
from orchestrator.catalog.gpus import GpuTable
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.registry import Catalog, load_catalog
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.deploy.session import Live
from orchestrator.plan import Constraints, Plan
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.command_line import PLANNED_ARGUMENTS
from orchestrator.planner.make_plan import make_plan
from orchestrator.planner.presets import engine_settings, preset_for
from orchestrator.probes.hugging_face import find_model
from orchestrator.probes.ray_cluster import Held, snapshot_from


@dataclass(frozen=True)
class Asked:
    """A model to be planned, with vLLM's arguments as far as they are given, and the environment."""

    model: str
    engine: Mapping[str, Any] = field(default_factory=dict)
    replicas: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def snapshot_of(live: Live, known: GpuTable) -> ClusterSnapshot:
    """The live cluster as the planner sees it."""
    held = Held(live.held_by_others, live.held_by_itself)
    return snapshot_from(live.url, live.agents, live.states, held, known)


def entry_of(model: str, known: Catalog) -> CatalogEntry | None:
    """The catalogue's entry of a model that has one."""
    found = known.find(model)
    return found[0] if found else None


def plan_of(asked: Asked, cluster: ClusterSnapshot, known: Catalog) -> Plan:
    """The plan. Raises `NoFeasiblePlan` where the model does not fit."""
    spec: ModelSpec = find_model(asked.model, known)
    entry = entry_of(asked.model, known)
    preset = preset_for(entry, cluster)
    planned_for = {name: value for name, value in asked.engine.items() if name in PLANNED_ARGUMENTS}
    wishes = Wishes(
        arguments=planned_for,
        preset=engine_settings(preset) if preset else {},
        preset_source=f"preset for {preset.num_gpus} × {preset.gpu}" if preset else "",
        constraints=Constraints(replicas=asked.replicas),
        needs_remote_code=entry is not None and entry.needs_remote_code,
        others={name: value for name, value in asked.engine.items() if name not in PLANNED_ARGUMENTS},
        env={**(preset.env if preset else {}), **asked.env},
    )
    return make_plan(build_request(spec, cluster, wishes))


def plan_for(model: str, cluster: ClusterSnapshot) -> Plan:
    """The plan of a model by the catalogue as it ships, with nothing else said."""
    return plan_of(Asked(model), cluster, load_catalog())
