"""`cluster-check`: whether `ray up FILE` finds on this computer all it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.output import JsonOption, print_json
from orchestrator.errors import ConfigError
from orchestrator.probes.cluster_file import missing_here

HELP = """Check a cluster file before `ray up`: the file itself, Ray's token, the SSH key, the files it copies.

Run it where `ray up` is to run:

    orchestrator cluster-check cluster-configs/kimi-16xh100.yaml && ray up cluster-configs/kimi-16xh100.yaml
"""


def cluster_check(
    file: Annotated[Path, typer.Argument(help="A Ray cluster file.", show_default=False)],
    as_json: bool = JsonOption,
) -> None:
    missing = missing_here(file, Path.cwd())
    if as_json:
        print_json({"file": str(file), "missing": list(missing)})
        if missing:
            raise typer.Exit(1)
    elif missing:
        raise ConfigError("\n".join((f"{file} is not ready for ray up:", *(f"  {line}" for line in missing))))
    else:
        typer.echo(f"{file}: ready for ray up")
