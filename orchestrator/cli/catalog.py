"""The catalogue as commands see it: what ships here, and the user's own models and GPUs."""

from __future__ import annotations

from pathlib import Path

import typer

from orchestrator.catalog.registry import Catalog, load_catalog
from orchestrator.store.home import own_catalog

CatalogOption = typer.Option(
    None,
    "--catalog",
    help="A file of your own models and GPUs. Default: catalog.yaml in $ORCHESTRATOR_HOME, where there is one.",
    show_default=False,
)


def the_catalog(file: Path | None) -> Catalog:
    """The shipped catalogue, extended by the file named, else by the one in the state folder."""
    return load_catalog(file or own_catalog())
