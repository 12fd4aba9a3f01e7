"""`logs`: what a model's engine wrote, from whichever node it runs on."""

from __future__ import annotations

from typing import Any

import typer

from orchestrator.cli.output import AddressOption, JsonOption, err, out, print_json
from orchestrator.deploy.ray_api import RayApi
from orchestrator.deploy.session import connected
from orchestrator.errors import UnknownModel

HELP = """Print the logs of a model's replicas: Serve's own, and the output of the engine's processes."""


def logs(
    model: str = typer.Argument(..., help="The name it is served under."),
    lines: int = typer.Option(100, "-n", "--lines", min=1, help="How many of the last lines of each file."),
    follow: bool = typer.Option(False, "-F", "--follow", help="Go on printing what is added (the engine's output)."),
    address: str = AddressOption,
    as_json: bool = JsonOption,
) -> None:
    api = connected(address)
    found = _files(api, model)
    if as_json:
        print_json([{**row, "lines": list(api.stream_log(row["node_id"], row["file"], lines, False))} for row in found])
        return
    for row in found[-1:] if follow else found:
        err.print(f"== {row['file']} on {row['node_ip']}", highlight=False)
        for line in api.stream_log(row["node_id"], row["file"], lines, follow):
            out.print(line, highlight=False, markup=False)


def _files(api: RayApi, model: str) -> list[dict[str, Any]]:
    """Log files of every replica: Serve's first, then the actor's own output, where the engine writes."""
    applications = api.serve_details()["applications"]
    if model not in applications:
        raise UnknownModel(f"no model {model!r} is deployed; there are: {', '.join(sorted(applications)) or 'none'}")
    found = []
    for deployment in applications[model]["deployments"].values():
        for replica in deployment["replicas"]:
            names = [str(replica["log_file_path"]).lstrip("/"), *_output_files(api, replica)]
            found += [{"node_id": replica["node_id"], "node_ip": replica["node_ip"], "file": name} for name in names]
    return found


def _output_files(api: RayApi, replica: dict[str, Any]) -> list[str]:
    worker = f"worker-{replica['worker_id']}-"
    return sorted(name for name in api.log_files(replica["node_id"]) if name.startswith(worker))
