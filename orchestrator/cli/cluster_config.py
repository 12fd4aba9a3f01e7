"""`cluster-config`: the file from which Ray's launcher, or KubeRay, makes the cluster that a model is planned for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
import yaml

from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cli.output import err, print_json
from orchestrator.cli.planning import Asked, plan_of
from orchestrator.cluster.spec import parse_gpus
from orchestrator.deploy import models
from orchestrator.deploy.service import default_name as service_name
from orchestrator.deploy.service import make_service
from orchestrator.deploy.session import application_of
from orchestrator.errors import ConfigError
from orchestrator.plan import Plan
from orchestrator.render.kuberay import KubeTarget, render_kuberay
from orchestrator.render.kuberay.manifests import Kind
from orchestrator.render.ray_cluster import render_ray_cluster
from orchestrator.render.target import Provider, Target

HELP = """Write the file that makes a cluster for a model: for `ray up`, or for KubeRay.

    orchestrator cluster-config kimi-k2 --gpus 16xH100 --provider local --host 10.0.0.1 --host 10.0.0.2 -o kimi.yaml
    orchestrator cluster-config kimi-k2 --gpus 16xH100 --provider kuberay --kind service \\
        --image registry.example.com/moe-orchestrator:0.1.0 -o kimi.yaml
"""
KUBERAY = "kuberay"


def cluster_config(
    model: Annotated[str, typer.Argument(help="Short name, Hugging Face id, folder or file.")],
    gpus: Annotated[str, typer.Option(help="The cluster in a word: 16xH100, 6+6+4xH100.")],
    provider: Annotated[str, typer.Option(help="local (hosts reached over SSH), aws, gcp or kuberay.")],
    spot: Annotated[bool, typer.Option("--spot", help="Rent machines that the cloud may take back.")] = False,
    rehearsal: Annotated[bool, typer.Option("--rehearsal", help="Let CPUs stand in for the GPUs.")] = False,
    host: Annotated[list[str] | None, typer.Option(help="A host's address, once for each, the head first.")] = None,
    kind: Annotated[str | None, typer.Option(help="kuberay: cluster (default), or service with the model.")] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: the image built from the Dockerfile.")] = None,
    model_claim: Annotated[str | None, typer.Option(help="kuberay: a ReadWriteMany claim for models.")] = None,
    name: Annotated[str | None, typer.Option(help="The cluster's name. Default: model and GPUs.")] = None,
    catalog: Path = CatalogOption,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead of printing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file's content as JSON.")] = False,
) -> None:
    known = the_catalog(catalog)
    name, path, cluster = name or default_name(model, gpus), str(output or "FILE"), parse_gpus(gpus, known.gpus)
    ours = {"--spot": spot, "--rehearsal": rehearsal, "--host": bool(host)}
    theirs = {"--kind": kind, "--image": image, "--model-claim": model_claim}
    made_by = command_line(model, gpus, provider, {**ours, "--host": False, **theirs})
    if provider == KUBERAY:
        _refuse(ours, "is for files of `ray up`; --provider is kuberay")
        kube = KubeTarget(name, path, made_by, image or "", read_kind(kind), model_claim)
        text = kuberay_text(plan_of(Asked(model), cluster, known), kube)
    else:
        _refuse(theirs, "needs --provider kuberay")
        target = Target(read_provider(provider), name, path, made_by, tuple(host or ()), spot, rehearsal, known.gpus)
        text = render_ray_cluster(plan_of(Asked(model), cluster, known), target)
    if as_json:
        documents = list(yaml.safe_load_all(text))
        print_json(documents if provider == KUBERAY else documents[0])
    elif output is None:
        typer.echo(text, nl=False)
    else:
        _write(output, text)


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raises `ConfigError` for the first option that was given."""
    for option, given in options.items():
        if given:
            raise ConfigError(f"{option} {why}")


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from None
    err.print(f"wrote {output}; its first lines say how to go on", highlight=False, markup=False)


def kuberay_text(plan: Plan, target: KubeTarget) -> str:
    """The manifests; a service's with the application that `deploy` would make of the plan."""
    applications = [_application(plan, target)] if target.kind == "service" else []
    return render_kuberay(plan, target, applications)


def _application(plan: Plan, target: KubeTarget) -> dict[str, Any]:
    """Raises `ConfigError` for a model that the pods could not fetch."""
    checkpoint = plan.model.checkpoint
    if Path(checkpoint).exists() or "/" not in checkpoint:
        raise ConfigError(f"{checkpoint} is on this computer, and not in the pods; name a model of Hugging Face")
    service = make_service(
        name=service_name(plan.model.name),
        model=checkpoint,
        replicas=plan.parallelism.replicas,
        engine={key: value for key, value in plan.engine.args.items() if key != "model"},
        env=plan.engine.env,
    )
    # The engines run elsewhere: a folder of this machine's cache means nothing there.
    model = models.resolve(service.model, lambda _line: None, from_cache=False)
    return application_of(service, model, target.names.control_url, on_gpus=True)


def read_provider(text: str) -> Provider:
    if text not in get_args(Provider):
        raise ConfigError(f"--provider is {text!r}; it must be {', '.join(get_args(Provider))}, {KUBERAY}")
    return cast(Provider, text)


def read_kind(text: str | None) -> Kind:
    if text is not None and text not in get_args(Kind):
        raise ConfigError(f"--kind is {text!r}; it must be {' or '.join(get_args(Kind))}")
    return cast(Kind, text or "cluster")


def default_name(model: str, gpus: str) -> str:
    """`kimi-k2-16xh100`, from the last part of a path or id."""
    words = f"{Path(model).name}-{gpus}".lower()
    return "".join(letter if letter.isalnum() else "-" for letter in words)


def command_line(model: str, gpus: str, provider: str, options: Mapping[str, object]) -> str:
    """The command that writes a file like this one, for its head; options are flags, or have a text."""
    words = ["orchestrator", "cluster-config", model, "--gpus", gpus, "--provider", provider]
    for option, given in options.items():
        words += [option] if given is True else [option, str(given)] if given else []
    return shlex.join(words)
