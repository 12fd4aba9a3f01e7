"""`cluster-config`: the file from which Ray's launcher, or KubeRay, makes the cluster that a model is planned for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
import yaml

from orchestrator.catalog.registry import Catalog, load_catalog
from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cli.output import err, print_json
from orchestrator.cluster.spec import parse_gpus
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan
from orchestrator.planner.arguments import Wishes, build_request
from orchestrator.planner.make_plan import make_plan
from orchestrator.planner.presets import engine_settings, preset_for
from orchestrator.probes.hugging_face import find_model
from orchestrator.render.ray_cluster import Provider, Target, render_ray_cluster

HELP = """Write the file that makes a cluster for a model, for `ray up`.

    orchestrator cluster-config kimi-k2 --gpus 16xH100 --provider local --host 10.0.0.1 --host 10.0.0.2 -o kimi.yaml
"""


def cluster_config(
    model: Annotated[str, typer.Argument(help="Short name, Hugging Face id, folder or file.")],
    gpus: Annotated[str, typer.Option(help="The cluster in a word: 16xH100, 6+6+4xH100.")],
    provider: Annotated[str, typer.Option(help="local (hosts reached over SSH), aws or gcp.")],
    spot: Annotated[bool, typer.Option("--spot", help="Rent machines that the cloud may take back.")] = False,
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Let CPUs stand in for the GPUs.")] = False,
    host: Annotated[list[str] | None, typer.Option(help="A host's address, once for each, the head first.")] = None,
    name: Annotated[str | None, typer.Option(help="The cluster's name. Default: model and GPUs.")] = None,
    catalog: Path = CatalogOption,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of printing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file's content as JSON.")] = False,
) -> None:
    known = the_catalog(catalog)
    target = Target(
        provider=read_provider(provider),
        name=name or default_name(model, gpus),
        path=str(output or "FILE"),
        made_by=command_line(model, gpus, provider, spot, rehearsal),
        hosts=tuple(host or ()),
        spot=spot,
        rehearsal=rehearsal,
        gpus=known.gpus,
    )
    text = render_ray_cluster(plan_for(model, gpus, known), target)
    if as_json:
        print_json(yaml.safe_load(text))
    elif output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from None
    err.print(f"wrote {output}; its first lines say how to go on", highlight=False, markup=False)


def plan_for(model: str, gpus: str, catalog: Catalog | None = None) -> Plan:
    """The plan that the file is for. Raises `NoFeasiblePlan` where the model does not fit."""
    known = catalog or load_catalog()
    cluster = parse_gpus(gpus, known.gpus)
    found = known.find(model)
    entry = found[0] if found else None
    preset = preset_for(entry, cluster)
    wishes = Wishes(
        preset=engine_settings(preset) if preset else {},
        preset_source=f"preset for {preset.num_gpus} × {preset.gpu}" if preset else "",
        needs_remote_code=entry is not None and entry.needs_remote_code,
        env=preset.env if preset else {},
    )
    return make_plan(build_request(find_model(model, known), cluster, wishes))


def read_provider(text: str) -> Provider:
    if text not in get_args(Provider):
        raise ConfigError(f"--provider is {text!r}; it must be {', '.join(get_args(Provider))}")
    return cast(Provider, text)


def default_name(model: str, gpus: str) -> str:
    """`kimi-k2-16xh100`, from the last part of a path or id."""
    words = f"{Path(model).name}-{gpus}".lower()
    return "".join(letter if letter.isalnum() else "-" for letter in words)


def command_line(model: str, gpus: str, provider: str, spot: bool, rehearsal: bool) -> str:
    """The command that writes a file like this one, for its head."""
    words = ["orchestrator", "cluster-config", model, "--gpus", gpus, "--provider", provider]
    words += ["--spot"] if spot else []
    words += ["--rehearsal"] if rehearsal else []
    return shlex.join(words)
