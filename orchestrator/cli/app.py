"""The typer application and the one place where an expected failure becomes a line and an exit code.

A command's module is imported when the command is called: `plan` needs no HTTP client, `chat` no planner, and
`--help` neither.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator import __version__
from orchestrator.cli.cluster_command import ClusterCommand
from orchestrator.errors import OrchestratorError

# Commands about a cluster, which may be elsewhere: then they run on its head.
ON_A_CLUSTER = {"plan", "deploy", "status", "chat", "logs", "delete", "down"}


# A module's function that makes a command with subcommands.
GROUP = "group"


@dataclass(frozen=True)
class _Listed:
    """A command as `--help` lists it: its first line, and where the rest of it is."""

    line: str
    module: str
    function: str
    # The module's name for its help; the function's docstring where there is none.
    help: str = "HELP"

    def command(self, name: str) -> Any:
        """The command itself, with its options."""
        module = import_module(f"orchestrator.cli.{self.module}")
        if self.function == GROUP:
            return module.group(name)
        alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
        command = alone.command(
            name,
            cls=ClusterCommand if name in ON_A_CLUSTER else None,
            help=getattr(module, self.help, None),
            epilog=getattr(module, "EPILOG", None),
            context_settings=getattr(module, "CONTEXT_SETTINGS", None),
        )
        command(getattr(module, self.function))
        return typer.main.get_command(alone)


# In the order in which `--help` lists them. A test holds each line to the command's own help.
COMMANDS = {
    "plan": _Listed(
        "Plan a model onto a cluster: layout, rank map, memory of every GPU, and why not otherwise.", "plan", "plan"
    ),
    "plan-diff": _Listed(
        "Compare two plans field by field, rank by rank; prints nothing but a line where they are equal.",
        "plan_diff",
        "plan_diff",
    ),
    "models": _Listed(
        "List the models that `deploy` knows by name. A folder with a checkpoint or a Hugging Face id will do too.",
        "models",
        "models",
    ),
    "build": _Listed(
        "Build a demo model and print its folder, which `deploy` takes as MODEL. What is whole is not built again.",
        "build",
        "build",
    ),
    "cluster-config": _Listed(
        "Write the file that makes a cluster for a model: for `ray up`, or for KubeRay.",
        "cluster_config",
        "cluster_config",
    ),
    "cluster-check": _Listed(
        "Check a cluster file before `ray up`: the file itself, Ray's token, the SSH key, the files it copies.",
        "cluster_check",
        "cluster_check",
    ),
    "pull": _Listed("Fetch the weights of MODEL and check every byte, before `deploy` needs them.", "pull", "pull"),
    "deploy": _Listed(
        "Deploy MODEL and return once a token has come back through the public path.", "deploy", "deploy"
    ),
    "status": _Listed(
        "Show the cluster, the front and every deployed model. Exit code 0 also when nothing runs: that is a state.",
        "status",
        "status",
    ),
    "chat": _Listed("Ask a deployed model; without QUESTION, talk until an empty line.", "chat", "chat"),
    "logs": _Listed(
        "Print the logs of a model's replicas: Serve's own, and the output of the engine's processes.", "logs", "logs"
    ),
    "keys": _Listed("Make, list, limit, rotate and revoke API keys; changes are in force within 2 s.", "keys", GROUP),
    "delete": _Listed(
        "Take a deployed model away: answers already begun are finished, then its processes end.",
        "delete",
        "delete",
        "DELETE_HELP",
    ),
    "down": _Listed(
        "Stop everything that was started here: every model, the front, and the Ray that `deploy` started.",
        "delete",
        "down",
        "DOWN_HELP",
    ),
}


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
    return COMMANDS[name].command(name)


for _name, _listed in COMMANDS.items():
    app.command(_name, help=_listed.line)(lambda: None)


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
