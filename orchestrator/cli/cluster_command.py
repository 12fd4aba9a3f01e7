"""The seam between commands and clusters elsewhere: what a command that acts on a cluster has in common with others."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

HERE = "local"
CLUSTER_HELP = "The file that `ray up` took: act on that cluster, over SSH. Default: the cluster used last."
HERE_HELP = "`local`: act on this machine, whatever was used last."
_WORDS = "orchestrator.words"
# Options that say where a command runs; what is left of it runs there.
WHERE = ("cluster", "address")


def _where_options() -> list[Any]:
    """The options that say where a command runs, as typer would make them of a command's parameters."""

    def where(
        cluster: str = typer.Option(None, metavar="FILE", help=CLUSTER_HELP, show_default=False),
        address: str = typer.Option(None, metavar=HERE, help=HERE_HELP, show_default=False),
    ) -> None: ...

    donor = typer.Typer(add_completion=False)
    donor.command()(where)
    return [param for param in typer.main.get_command(donor).params if param.name in WHERE]


class ClusterCommand(TyperCommand):
    """A command with `--cluster` and `--address`, which a cluster elsewhere runs on its head instead of here."""

    def __init__(self, name: str | None, **settings: Any) -> None:
        super().__init__(name, **settings)
        own = {param.name for param in self.params}
        self.takes_address = "address" in own
        for option in _where_options():
            if option.name not in own:
                option.expose_value = False
                self.params.append(option)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = list(args)
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def invoke(self, ctx: Any) -> Any:
        if self.name == "plan" and not ctx.params["live"]:
            return super().invoke(ctx)
        from orchestrator.cli import remote  # an HTTP client and more, which a plan from files does without

        return remote.invoke(self, ctx, super().invoke)

    def given(self, ctx: Any) -> dict[str, Any]:
        """What was written on the command line for each parameter, as it was written."""
        written, _, _ = self.make_parser(ctx).parse_args(list(ctx.meta[_WORDS]))
        sources = {name: ctx.get_parameter_source(name) for name in written}
        return {name: written[name] for name, source in sources.items() if source and source.name == "COMMANDLINE"}
