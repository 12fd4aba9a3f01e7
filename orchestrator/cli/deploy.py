"""`deploy`: bring a model up and return once a token has come back."""

from __future__ import annotations

import signal
from enum import Enum
from pathlib import Path
from typing import Any

import typer
import yaml

from orchestrator.catalog.registry import Catalog
from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cli.courses import Rehearsal, Serving
from orchestrator.cli.output import AddressOption, JsonOption, ProgressView, err, out, print_json, print_phases
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import front as fronts
from orchestrator.deploy import session
from orchestrator.deploy.apply import Outcome
from orchestrator.deploy.service import Service, make_service, read_engine_arguments, read_service
from orchestrator.errors import ApplyFailed, ConfigError
from orchestrator.plan import load_plan
from orchestrator.remote import seen
from orchestrator.store.secrets import ensure_api_key

CONTEXT_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
HELP = """Deploy MODEL and return once a token has come back through the public path.

MODEL is a name (see `orchestrator models`), a folder with a checkpoint, or a Hugging Face id. With no Ray running,
one is started on this machine. Deploying again changes only what differs.

Any vLLM engine argument may follow by its own name:

    orchestrator deploy smol-moe --max-model-len 1024 --max-num-seqs 8

A service can be kept in git and deployed with -f:

    name: chat
    model: smol-moe
    replicas: 1
    engine: {max_model_len: 1024}
    access: {auth: true}
"""


class FrontKind(str, Enum):
    """What stands between clients and replicas."""

    haproxy = "haproxy"
    serve = "serve"


def deploy(
    context: typer.Context,
    model: str = typer.Argument(None, help="Name, folder or Hugging Face id.", show_default=False),
    file: Path = typer.Option(None, "-f", "--file", help="A service file instead of MODEL.", show_default=False),
    name: str = typer.Option(None, help="Serve under this name. Default: the model's.", show_default=False),
    replicas: int = typer.Option(None, help="How many copies of the engine.", show_default=False),
    auth: bool = typer.Option(None, "--auth/--no-auth", help="Whether callers need the API key.", show_default="auth"),
    host: str = typer.Option(fronts.DEFAULT_HOST, help="Public address to listen on."),
    port: int = typer.Option(fronts.DEFAULT_PORT, min=1, max=65535, help="Public port to listen on."),
    front: FrontKind = typer.Option(FrontKind.haproxy, help="The way in: HAProxy, or Serve's own proxy (slower)."),
    timeout: float = typer.Option(session.DEFAULT_TIMEOUT_S, min=1, help="Give up, and undo, after so many seconds."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Return at once with --no-wait; then see `status`."),
    plan_file: Path = typer.Option(None, "--plan", help="Apply this plan (of `plan --json`).", show_default=False),
    emulate: bool = typer.Option(
        False, "--emulate", help="Rehearse: plan the real model, run a small one by that plan on emulated GPUs."
    ),
    gpus: str = typer.Option(None, help="With --emulate: the cluster to emulate, as 16xH100.", show_default=False),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only print the Serve configuration, for the Ray there is."),
    catalog: Path = CatalogOption,
    address: str = AddressOption,
    as_json: bool = JsonOption,
) -> None:
    if plan_file is not None and model is None and file is None:
        model = load_plan(plan_file).model.name
    service = _service(context.args, model, file, name=name, replicas=replicas, auth=auth)
    known = the_catalog(catalog)
    course = _course(service, known, plan_file, emulate, gpus)
    if dry_run:
        if (emulate or plan_file) and clusters.find_cluster(address) is None:
            raise ConfigError("a plan is tied to a cluster, and none runs: name one with --address, or see `plan`")
        _print_config(session.preview(service, address, course, lambda line: err.print(line)), as_json)
        return
    # An operator's SIGTERM undoes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    view = ProgressView()
    target = session.Target(address, host, port, front.value)
    try:
        outcome, base_url = session.deploy(service, target, course, view, timeout, wait)
    except KeyboardInterrupt:
        raise ApplyFailed(f"interrupted; {service.name} is as it was before") from None
    finally:
        view.close()
    if as_json:
        print_json(_document(outcome, base_url, service))
    else:
        _print_outcome(outcome, base_url, service, wait)


def _course(
    service: Service, known: Catalog, plan_file: Path | None, emulate: bool, gpus: str | None
) -> session.Course:
    if not emulate:
        if gpus is not None:
            raise ConfigError("--gpus names the cluster to emulate; it goes with --emulate")
        return Serving(known, plan_file)
    if plan_file is not None:
        raise ConfigError("--emulate plans by itself; leave out --plan")
    note = f"  REHEARSAL: emulated GPUs, and a small model in place of {service.model}"
    err.print(note, highlight=False, markup=False)
    return Rehearsal(known, gpus, service.model)


def _service(words: list[str], model: str | None, file: Path | None, **given: Any) -> Service:
    """The service that the command line describes; what is given there wins over the file."""
    if model is not None and model.startswith("-"):  # the first engine argument, where no MODEL stands before it
        if file is None:
            raise ConfigError(f"name the MODEL before engine arguments: orchestrator deploy MODEL {model} …")
        words, model = [model, *words], None
    engine = read_engine_arguments(words)
    if (model is None) == (file is None):
        raise ConfigError("name a MODEL, or a service file with -f (one of the two)")
    fields: dict[str, Any] = read_service(file).model_dump() if file else {"model": model}
    fields["engine"] = {**fields.get("engine", {}), **engine}
    if given["auth"] is not None:
        fields["access"] = {**fields.get("access", {}), "auth": given["auth"]}
    fields.update({key: given[key] for key in ("name", "replicas") if given[key] is not None})
    return make_service(**fields)


def _print_config(app: dict[str, Any], as_json: bool) -> None:
    config = {"proxy_location": "Disabled", "applications": [app]}
    if as_json:
        print_json(config)
    else:
        typer.echo(yaml.safe_dump(config, sort_keys=False), nl=False)


def _document(outcome: Outcome, base_url: str, service: Service) -> dict[str, Any]:
    return {
        "name": outcome.name,
        "action": outcome.action,
        "changes": [vars(change) for change in outcome.changes],
        "phases_seconds": outcome.seconds,
        "total_seconds": sum(outcome.seconds.values()),
        "kv_cache_tokens": outcome.facts.get("kv_cache_tokens"),
        "layout": outcome.plan.parallelism.label() if outcome.plan else None,
        "rank_warnings": outcome.facts.get("rank_warnings", []),
        "base_url": seen.base_url(base_url),
        "api_key_file": seen.api_key_file(str(ensure_api_key())) if service.access.auth else None,
    }


def _print_outcome(outcome: Outcome, base_url: str, service: Service, wait: bool) -> None:
    for change in outcome.changes:
        err.print(f"  {change}", highlight=False, markup=False)
    if outcome.seconds:
        print_phases(outcome.seconds)
    if tokens := outcome.facts.get("kv_cache_tokens"):
        err.print(f"  KV cache holds {tokens:,} tokens", highlight=False)
    for odd in outcome.facts.get("rank_warnings", []):
        err.print(f"  warning: {odd}", highlight=False, markup=False)
    verb = outcome.action if wait or outcome.action == "unchanged" else "submitted"
    out.print(f"{outcome.name}: {verb}", highlight=False)
    out.print(f"base_url: {seen.base_url(base_url)}", highlight=False)
    out.print(
        f"api_key:  {'in ' + seen.api_key_file(str(ensure_api_key())) if service.access.auth else 'not needed'}",
        highlight=False,
    )
