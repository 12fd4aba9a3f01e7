"""The typer application and the one place where an expected failure becomes a line and an exit code.

A command's module is imported when the command is called: `plan` needs no HTTP client, `chat` no planner, and
`--help` neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator import __version__
from orchestrator.errors import OrchestratorError

Register = Callable[[typer.Typer], None]
_ENGINE_ARGUMENTS_FOLLOW = {"allow_extra_args": True, "ignore_unknown_options": True}
# What each command is made by, in the order in which `--help` lists them.
COMMANDS: dict[str, Register] = {}


class _Commands(TyperGroup):
    """Lists commands by name and line alone, and makes the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else listed, rest


app = typer.Typer(
    name="orchestrator",
    cls=_Commands,
    help="Plan, deploy and watch Mixture-of-Experts models on Ray.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Plan, deploy and watch Mixture-of-Experts models on Ray."""


def load(name: str) -> Any:
    """The command itself, with its options."""
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    COMMANDS[name](alone)
    return typer.main.get_command(alone)


def _command(name: str, line: str) -> Callable[[Register], Register]:
    """Lists a command; `line` is the first of its help."""

    def listed(register: Register) -> Register:
        COMMANDS[name] = register
        app.command(name, help=line)(lambda: None)
        return register

    return listed


@_command("plan", "Plan a model onto a cluster: layout, rank map, memory of every GPU, and why not otherwise.")
def _plan(to: typer.Typer) -> None:
    from orchestrator.cli import plan

    to.command("plan", context_settings=plan.CONTEXT_SETTINGS, epilog=plan.EPILOG)(plan.plan)


@_command(
    "plan-diff", "Compare two plans field by field, rank by rank; prints nothing but a line where they are equal."
)
def _plan_diff(to: typer.Typer) -> None:
    from orchestrator.cli import plan_diff

    to.command("plan-diff")(plan_diff.plan_diff)


@_command(
    "models",
    "List the models that `deploy` knows by name. A folder with a checkpoint or a Hugging Face id will do too.",
)
def _models(to: typer.Typer) -> None:
    from orchestrator.cli import models

    to.command(help=models.HELP)(models.models)


@_command(
    "build",
    "Build a demo model and print its folder, which `deploy` takes as MODEL. What is whole is not built again.",
)
def _build(to: typer.Typer) -> None:
    from orchestrator.cli import build

    to.command(help=build.HELP)(build.build)


@_command("cluster-config", "Write the file that makes a cluster for a model, for `ray up`.")
def _cluster_config(to: typer.Typer) -> None:
    from orchestrator.cli import cluster_config

    to.command("cluster-config", help=cluster_config.HELP)(cluster_config.cluster_config)


@_command("deploy", "Deploy MODEL and return once a token has come back through the public path.")
def _deploy(to: typer.Typer) -> None:
    from orchestrator.cli import deploy

    to.command(help=deploy.HELP, context_settings=_ENGINE_ARGUMENTS_FOLLOW)(deploy.deploy)


@_command(
    "status",
    "Show the cluster, the front and every deployed model. Exit code 0 also when nothing runs: that is a state.",
)
def _status(to: typer.Typer) -> None:
    from orchestrator.cli import status

    to.command(help=status.HELP)(status.status)


@_command("chat", "Ask a deployed model; without QUESTION, talk until an empty line.")
def _chat(to: typer.Typer) -> None:
    from orchestrator.cli import chat

    to.command(help=chat.HELP)(chat.chat)


@_command("logs", "Print the logs of a model's replicas: Serve's own, and the output of the engine's processes.")
def _logs(to: typer.Typer) -> None:
    from orchestrator.cli import logs

    to.command(help=logs.HELP)(logs.logs)


@_command("delete", "Take a deployed model away: answers already begun are finished, then its processes end.")
def _delete(to: typer.Typer) -> None:
    from orchestrator.cli import delete

    to.command(help=delete.DELETE_HELP)(delete.delete)


@_command("down", "Stop everything that was started here: every model, the front, and the Ray that `deploy` started.")
def _down(to: typer.Typer) -> None:
    from orchestrator.cli import delete

    to.command(help=delete.DOWN_HELP)(delete.down)


def main() -> None:
    """Run the command line: expected failures are one line on stderr and exit code 1."""
    try:
        app()
    except OrchestratorError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(1)
    except KeyboardInterrupt:
        typer.secho("error: interrupted", err=True, fg="red")
        sys.exit(1)
