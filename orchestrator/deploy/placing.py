"""A plan as Ray's placement: one bundle a rank, in rank order, each pinned to its node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster import labels
from orchestrator.deploy.ray_api import RayNode
from orchestrator.errors import SeatTaken, StalePlan
from orchestrator.plan import Plan


@dataclass(frozen=True)
class Planned:
    """A plan to be applied.

    `contents` is the plan of what the ranks really hold: the same, or in a rehearsal that of the model that stands
    in; `engine` and `env` are what the engine is started with beside what the service says.
    """

    plan: Plan
    contents: Plan
    engine: Mapping[str, Any]
    env: Mapping[str, str]


def selectors(plan: Plan, nodes: Sequence[RayNode]) -> list[list[dict[str, str]]]:
    """For each replica, the label selector of each rank's bundle.

    Raises `StalePlan` for a node that is not there.
    """
    by_name = {node.name: _selector(node) for node in nodes}
    missing = sorted({rank.node for rank in plan.ranks} - set(by_name))
    if missing:
        raise StalePlan(f"the plan has ranks on {missing[0]}, which is no live node; plan again")
    replicas: list[list[dict[str, str]]] = [[] for _ in range(plan.parallelism.replicas)]
    for rank in sorted(plan.ranks, key=lambda rank: (rank.replica, rank.rank)):
        replicas[rank.replica].append(by_name[rank.node])
    return replicas


def _selector(node: RayNode) -> dict[str, str]:
    host = node.labels.get(labels.HOST)
    return {labels.HOST: host} if host else {labels.NODE_ID: node.node_id}


def waits_for(args: Mapping[str, Any], nodes: Sequence[RayNode]) -> str:
    """Why an application's ranks have no place, as far as its plan tells; empty where every planned node is there."""
    there = [{**node.labels, labels.NODE_ID: node.node_id} for node in nodes]
    ranks = sorted((args.get("plan") or {}).get("ranks", []), key=lambda rank: (rank["replica"], rank["rank"]))
    chosen = [selector for replica in args.get("selectors") or [] for selector in replica]
    for rank, selector in zip(ranks, chosen, strict=False):
        if not any(selector.items() <= node.items() for node in there):
            return f"rank {rank['rank']} waits for {rank['node']}, which is no live node"
    return ""


def rank_order(num_ranks: int) -> dict[str, str]:
    """The environment that has vLLM's Ray executor give rank i bundle i.

    Without it the executor sorts bundles by node id, a hash: on uneven nodes a tensor group straddles machines.
    """
    return {"VLLM_RAY_BUNDLE_INDICES": ",".join(map(str, range(num_ranks)))}


def gpus_held(details: Mapping[str, Any], name: str) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """GPUs by node that deployed plans hold: by others than `name`, and by `name` itself (which it may use again)."""
    others: dict[str, set[int]] = {}
    own: dict[str, set[int]] = {}
    for app_name, app in details.get("applications", {}).items():
        args = (app.get("deployed_app_config") or {}).get("args")
        plan = (args.get("plan") if isinstance(args, Mapping) else None) or {}  # a stranger's args are anything
        held = own if app_name == name else others
        for rank in plan.get("ranks", ()):
            held.setdefault(rank["node"], set()).add(rank["gpu_index"])
    return others, own


def check_seats(app: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Raise `SeatTaken` where another deployment holds a GPU that the application's plan gives to a rank."""
    others, _ = gpus_held(details, str(app["name"]))
    for rank in (app["args"].get("plan") or {}).get("ranks", ()):
        if rank["gpu_index"] in others.get(rank["node"], ()):
            raise SeatTaken(
                f"another deployment has taken GPU {rank['gpu_index']} of {rank['node']}, planned for rank "
                f"{rank['rank']} of {app['name']}; deploy again"
            )


def rank_rows(args: Mapping[str, Any], announced: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ranks of an application with what each holds, planned and, where it has told, its GPU and measured bytes.

    `args` are the application's; `announced` is what its ranks said of themselves.
    """
    told = {(said["replica"], said["rank"]): said for said in announced}
    places = (args.get("plan") or {}).get("ranks", [])
    holdings = (args.get("contents") or args.get("plan") or {}).get("ranks", [])
    return [
        _rank_row(place, holding, told.get((place["replica"], place["rank"]), {}))
        for place, holding in zip(places, holdings, strict=True)
    ]


def _rank_row(place: Mapping[str, Any], holding: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{fact: place[fact] for fact in ("rank", "replica", "node", "tensor_rank", "pipeline_stage")},
        "gpu_index": said.get("gpu_index", place["gpu_index"]),
        "layers": holding["layers"],
        "experts": holding["experts"],
        "weights_bytes_planned": holding["memory"]["weights_bytes"],
        "weights_bytes_measured": said.get("weights_bytes"),
    }
