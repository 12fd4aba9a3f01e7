"""`plan`: how to split a model over a cluster, proof that it fits, and the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer
import yaml

from orchestrator.catalog.engine_rules import EngineRule, check_version, load_rules
from orchestrator.catalog.entries import CatalogEntry
from orchestrator.catalog.gpus import GpuTable
from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.registry import Catalog
from orchestrator.cli import plan_view
from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cluster.snapshot import ClusterSnapshot
from orchestrator.cluster.spec import load_cluster, parse_gpus
from orchestrator.errors import ClusterUnavailable, ConfigError, NoFeasiblePlan
from orchestrator.plan import Constraints, Objective, Plan, verify
from orchestrator.planner.advice import no_feasible_plan
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.build import build_plan
from orchestrator.planner.command_line import PLANNED_ARGUMENTS, CommandLine, read_arguments, read_command
from orchestrator.planner.notices import notes_of
from orchestrator.planner.presets import engine_settings, preset_for
from orchestrator.planner.reasons import explain as explain_choice
from orchestrator.planner.request import ENGINE_VERSION, PlanRequest
from orchestrator.planner.rule_of_thumb import disagreement, rule_of_thumb
from orchestrator.planner.search import Found, search
from orchestrator.planner.what_if import what_if
from orchestrator.probes.hugging_face import find_model

# What `--what-if` plans for where no cluster is named; its GPUs are not looked at.
_ANY_CLUSTER = "1xH100"

# Engine arguments are not options of this command: they come in among the words, and are read there.
CONTEXT_SETTINGS = {"ignore_unknown_options": True}
EPILOG = "Engine arguments, by vLLM's names: " + ", ".join(f"--{name.replace('_', '-')}" for name in PLANNED_ARGUMENTS)


@dataclass(frozen=True)
class Asked:
    """The model and its arguments, from the command's own options or from a whole command line."""

    model: str
    command: CommandLine
    whole_command: bool


@dataclass(frozen=True)
class Options:
    """What is wanted, apart from the model, its arguments and the cluster."""

    objective: Objective
    constraints: Constraints
    catalog: Catalog
    rules: tuple[EngineRule, ...]
    engine_version: str


@dataclass(frozen=True)
class Where:
    """The cluster as it was named."""

    file: Path | None
    gpus: str | None
    live: bool
    address: str | None

    @property
    def options(self) -> tuple[tuple[str, bool], ...]:
        return (("--cluster", self.file is not None), ("--gpus", self.gpus is not None), ("--live", self.live))


def plan(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL [ENGINE ARGUMENTS]", help="Short name, Hugging Face id, folder or file."),
    ] = None,
    cluster: Annotated[Path | None, typer.Option(help="A cluster file: plain, or Ray's.")] = None,
    gpus: Annotated[str | None, typer.Option(help="A cluster in a word: 16xH100, 6+6+4xH100.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Ask the running Ray cluster what it has.")] = False,
    address: Annotated[str | None, typer.Option(help="With --live: Ray's dashboard.")] = None,
    from_command: Annotated[str | None, typer.Option(help="Check a whole `vllm serve …` command.")] = None,
    objective: Annotated[str, typer.Option(help="throughput, latency or cost.")] = "throughput",
    concurrency: Annotated[int | None, typer.Option(help="Requests of full length at once.")] = None,
    use_gpus: Annotated[int | None, typer.Option(help="Use at most this many GPUs.")] = None,
    gpu_type: Annotated[str | None, typer.Option(help="Use only this kind of GPU.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Copies of the model.")] = None,
    catalog: Path = CatalogOption,
    rules: Annotated[Path | None, typer.Option(help="A file of further engine rules.")] = None,
    engine_version: Annotated[str, typer.Option(help="The vLLM whose rules apply.")] = ENGINE_VERSION,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan document.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the plan document as YAML.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why this layout was chosen.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every rank and every refusal.")] = False,
    thumb: Annotated[bool, typer.Option("--rule-of-thumb", help="Show the × 1.15 rule beside it.")] = False,
    which_gpus: Annotated[bool, typer.Option("--what-if", help="Show which GPUs would do.")] = False,
) -> None:
    """Plan a model onto a cluster: layout, rank map, memory of every GPU, and why not otherwise.

    Any vLLM engine argument that bears on memory or layout can be fixed by its own name, for example
    `--tensor-parallel-size 8 --enable-expert-parallel --max-model-len 32768`.
    """
    if as_json and as_yaml:
        raise ConfigError("say either --json or --yaml")
    asked = _asked(words or [], from_command)
    known = the_catalog(catalog)
    machines = _machines(Where(cluster, gpus, live, address), which_gpus, known.gpus)
    options = Options(
        objective=_objective(objective),
        constraints=_constraints(concurrency, use_gpus, gpu_type, replicas),
        catalog=known,
        rules=load_rules(rules) if rules else (),
        engine_version=check_version(engine_version),
    )
    request = _request(asked, machines, options)
    if which_gpus:
        plan_view.print_choices(request, what_if(request))
        return
    found = search(request)
    if thumb and not (as_json or as_yaml):
        _print_rule_of_thumb(request, found)
    document = _plan(request, found, show_all)
    if as_json or as_yaml:
        typer.echo(_dump(document, as_json))
        return
    winner = found.winner
    plan_view.print_plan(document, notes_of(winner) if winner else (), show_all)
    if explain and winner is not None:
        plan_view.print_reasons(explain_choice(found, winner))


def _dump(document: Plan, as_json: bool) -> str:
    if as_json:
        return document.to_json()
    return yaml.safe_dump(document.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _asked(words: list[str], from_command: str | None) -> Asked:
    if from_command is not None:
        if words:
            raise ConfigError(f"say either a model or --from-command, not {words[0]!r} and a command")
        command = read_command(from_command)
        if command.model is None:
            raise ConfigError("--from-command names no model: `vllm serve MODEL …`")
        return Asked(command.model, command, True)
    command = read_arguments(words)
    if command.model is None:
        raise ConfigError("name a model, for example: plan kimi-k2 --gpus 16xH100")
    return Asked(command.model, command, False)


def _machines(where: Where, any_will_do: bool, known: GpuTable) -> ClusterSnapshot:
    named = [option for option, given in where.options if given]
    if len(named) > 1:
        raise ConfigError(f"name one cluster, not several: {' and '.join(named)}")
    if where.live:
        return _live_cluster(where.address, known)
    if where.file is not None:
        return load_cluster(where.file, known)
    if where.gpus is not None:
        return parse_gpus(where.gpus, known)
    if any_will_do:
        return parse_gpus(_ANY_CLUSTER, known)
    raise ConfigError("name a cluster: --gpus 16xH100, --cluster FILE or --live; --what-if lists GPUs that would do")


def _live_cluster(address: str | None, known: GpuTable) -> ClusterSnapshot:
    """The Ray that `address` names, else the one that commands find by themselves, less what is deployed there."""
    # Only here is a client for Ray needed.
    from orchestrator.cli.planning import snapshot_of
    from orchestrator.deploy.cluster import find_cluster
    from orchestrator.deploy.session import look

    found = find_cluster(address)
    if found is None:
        raise ClusterUnavailable("no Ray cluster was found; name its dashboard with --address, or use --gpus")
    api = found.api()
    try:
        return snapshot_of(look(api), known)
    finally:
        api.close()


def _objective(text: str) -> Objective:
    if text not in get_args(Objective):
        raise ConfigError(f"--objective is {text!r}; it must be throughput, latency or cost")
    return cast(Literal["latency", "throughput", "cost"], text)


def _constraints(concurrency: int | None, gpus: int | None, gpu_type: str | None, replicas: int | None) -> Constraints:
    for option, number in (("--concurrency", concurrency), ("--use-gpus", gpus), ("--replicas", replicas)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} is {number}; it must be at least 1")
    return Constraints(concurrency=concurrency, gpus=gpus, gpu_type=gpu_type, replicas=replicas)


def _request(asked: Asked, machines: ClusterSnapshot, options: Options) -> PlanRequest:
    spec, entry = _model(asked.model, options.catalog)
    preset = None if asked.whole_command else preset_for(entry, machines)
    wishes = Wishes(
        arguments=asked.command.arguments,
        preset=engine_settings(preset) if preset else {},
        preset_source=f"preset for {preset.num_gpus} × {preset.gpu}" if preset else "",
        whole_command=asked.whole_command,
        objective=options.objective,
        constraints=options.constraints,
        engine_version=options.engine_version,
        rules=options.rules,
        needs_remote_code=entry is not None and entry.needs_remote_code,
        others=asked.command.others,
        env={**(preset.env if preset else {}), **asked.command.env},
    )
    return build_request(spec, machines, wishes)


def _model(name: str, catalog: Catalog) -> tuple[ModelSpec, CatalogEntry | None]:
    found = catalog.find(name)
    return find_model(name, catalog), found[0] if found else None


def _plan(request: PlanRequest, found: Found, show_all: bool) -> Plan:
    if found.winner is None:
        error = no_feasible_plan(request, found)
        if show_all:
            _print_refusals(error)
        raise error
    document = build_plan(request, found, found.winner)
    verify(document)
    return document


def _print_refusals(error: NoFeasiblePlan) -> None:
    for reason in error.reasons:
        typer.echo(reason, err=True)


def _print_rule_of_thumb(request: PlanRequest, found: Found) -> None:
    rule, fits = rule_of_thumb(request), found.winner is not None
    typer.echo(rule.sentence())
    agreement = f"the exact figure agrees: {'it fits' if fits else 'it does not fit'}"
    typer.echo(disagreement(rule, fits, request) or agreement)
