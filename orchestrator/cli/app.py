"""The typer application and the one place where an expected failure becomes a line and an exit code."""

from __future__ import annotations

import sys

import typer

from orchestrator import __version__
from orchestrator.cli import build, chat, cluster_config, delete, deploy, logs, models, plan, plan_diff, pull, status
from orchestrator.errors import OrchestratorError

app = typer.Typer(
    name="orchestrator",
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


_ENGINE_ARGUMENTS_FOLLOW = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command("plan", context_settings=plan.CONTEXT_SETTINGS, epilog=plan.EPILOG)(plan.plan)
app.command("plan-diff")(plan_diff.plan_diff)
app.command(help=models.HELP)(models.models)
app.command(help=build.HELP)(build.build)
app.command("cluster-config", help=cluster_config.HELP)(cluster_config.cluster_config)
app.command(help=pull.HELP)(pull.pull)
app.command(help=deploy.HELP, context_settings=_ENGINE_ARGUMENTS_FOLLOW)(deploy.deploy)
app.command(help=status.HELP)(status.status)
app.command(help=chat.HELP)(chat.chat)
app.command(help=logs.HELP)(logs.logs)
app.command(help=delete.DELETE_HELP)(delete.delete)
app.command(help=delete.DOWN_HELP)(delete.down)


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
