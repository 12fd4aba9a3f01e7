"""`models`: what can be deployed by name."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cli.output import JsonOption, out, print_json
from orchestrator.deploy.models import known_models

HELP = """List the models that `deploy` knows by name. A folder with a checkpoint or a Hugging Face id will do too."""


def models(catalog: Path = CatalogOption, as_json: bool = JsonOption) -> None:
    rows = [
        {"name": name, "description": description} for name, description in known_models(the_catalog(catalog)).items()
    ]
    if as_json:
        print_json(rows)
        return
    table = Table("name", "what it is", box=None)
    for row in rows:
        table.add_row(row["name"], row["description"])
    out.print(table)
