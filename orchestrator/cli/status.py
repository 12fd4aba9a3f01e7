"""`status`: what is served, by how many replicas, and where."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from orchestrator.cli.output import AddressOption, JsonOption, out, print_json
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import front as fronts
from orchestrator.deploy.placing import rank_rows
from orchestrator.deploy.render import INGRESS_NAME
from orchestrator.deploy.serve_config import failure
from orchestrator.deploy.session import connected
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.units import format_bytes

HELP = """Show the cluster, the front and every deployed model. Exit code 0 also when nothing runs: that is a state."""


def status(address: str = AddressOption, as_json: bool = JsonOption) -> None:
    document = collect(address)
    if as_json:
        print_json(document)
    else:
        _print(document)


def collect(address: str | None) -> dict[str, Any]:
    """Everything there is to say, as JSON would have it."""
    front = fronts.running_front()
    document: dict[str, Any] = {
        "ray": None,
        "front": {"base_url": front.base_url, "pid": front.pid} if front else None,
        "models": [],
    }
    if address is None and clusters.find_cluster(None) is None:
        return document
    try:
        api = connected(address)
        document["ray"] = {
            "dashboard_url": api.url,
            "version": api.version(),
            "nodes": [n.describe() for n in api.nodes()],
        }
        applications = api.serve_details()["applications"]
    except ClusterUnavailable as error:
        document["ray"] = {"error": str(error)}
        return document
    live = _live_replicas(front)
    applications.pop(INGRESS_NAME, None)
    document["models"] = [_model(name, app, live.get(name, [])) for name, app in sorted(applications.items())]
    for row in document["models"]:
        row["trouble"] = _trouble(front, row) or None
    return document


def _trouble(front: fronts.FrontRecord | None, row: dict[str, Any]) -> str:
    """Why a model is away: what its last engine said in the end."""
    if front is None or row["replicas_serving"] == row["replicas_wanted"]:
        return ""
    try:
        events = fronts.FrontControl(front.control_url).events(row["name"], after=0)["events"]
    except ApplyFailed:
        return ""
    return next((str(event["detail"].get("cause")) for event in reversed(events) if event["kind"] == "failed"), "")


def _live_replicas(front: fronts.FrontRecord | None) -> dict[str, list[dict[str, Any]]]:
    """What the replicas of each model announce of themselves."""
    if front is None:
        return {}
    try:
        known = fronts.FrontControl(front.control_url).deployments()
    except ApplyFailed:
        return {}
    return {row["name"]: list(row["replicas"].values()) for row in known}


def _model(name: str, app: dict[str, Any], live: list[dict[str, Any]]) -> dict[str, Any]:
    args = (app.get("deployed_app_config") or {}).get("args", {})
    replicas = [replica for deployment in app["deployments"].values() for replica in deployment["replicas"]]
    service = args.get("service", {})
    return {
        "name": name,
        "model": service.get("model"),
        "aliases": args.get("aliases", []),
        "status": app["status"],
        "message": failure(app["message"]) if app.get("message") else "",
        "replicas_wanted": service.get("replicas"),
        "replicas_serving": len(live),
        "rehearsal": any(said["rehearsal"] for said in live),
        "replicas": [
            {key: replica.get(key) for key in ("replica_id", "state", "node_ip", "pid")} for replica in replicas
        ],
        "engine": args.get("llm_config", {}).get("engine_kwargs", {}),
        "auth": service.get("access", {}).get("auth"),
        "ranks": rank_rows(args, [rank for said in live for rank in said["ranks"]]),
    }


def _print(document: dict[str, Any]) -> None:
    ray, front = document["ray"], document["front"]
    if ray is None:
        out.print("ray: not running (start it with: orchestrator deploy MODEL)", highlight=False)
    elif "error" in ray:
        out.print(f"ray: {ray['error']}", highlight=False, markup=False)
    else:
        out.print(f"ray: {ray['version']} at {ray['dashboard_url']}; {'; '.join(ray['nodes'])}", highlight=False)
    out.print(f"front: {front['base_url'] if front else 'not running'}", highlight=False)
    if not document["models"]:
        out.print("models: none", highlight=False)
        return
    table = Table("name", "model", "status", "replicas", "key needed", "note", box=None)
    for row in document["models"]:
        serving = f"{row['replicas_serving']}/{row['replicas_wanted']}"
        note = "; ".join(
            text for text in ("rehearsal" if row["rehearsal"] else "", row["trouble"] or row["message"]) if text
        )
        table.add_row(row["name"], row["model"], row["status"], serving, "yes" if row["auth"] else "no", note)
    out.print(table)
    for row in document["models"]:
        if row["ranks"]:
            out.print(_rank_table(row["name"], row["ranks"]))


def _rank_table(name: str, ranks: list[dict[str, Any]]) -> Table:
    heads = ("rank", "replica", "node", "GPU", "tensor", "stage", "layers", "experts", "planned", "measured")
    table = Table(*heads, box=None, title=f"{name}: ranks, weights planned and measured", title_justify="left")
    for rank in ranks:
        layers = f"{rank['layers'][0]}–{rank['layers'][1] - 1}"
        experts = "sharded" if rank["experts"] is None else str(len(rank["experts"]))
        measured = rank["weights_bytes_measured"]
        cells = [rank["rank"], rank["replica"], rank["node"], rank["gpu_index"], rank["tensor_rank"]]
        cells += [rank["pipeline_stage"], layers, experts, format_bytes(rank["weights_bytes_planned"])]
        table.add_row(*map(str, cells), "–" if measured is None else format_bytes(measured))
    return table
