"""The typer application and the one place where an expected failure becomes a line and an exit code."""

from __future__ import annotations

import sys

import typer

from orchestrator import __version__
from orchestrator.cli import plan, plan_diff
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


app.command("plan", context_settings=plan.CONTEXT_SETTINGS, epilog=plan.EPILOG)(plan.plan)
app.command("plan-diff")(plan_diff.plan_diff)


def main() -> None:
    """Run the command line: expected failures are one line on stderr and exit code 1."""
    try:
        app()
    except OrchestratorError as error:
        typer.secho(f"error: {error}", err=True, fg="red")
        sys.exit(1)
