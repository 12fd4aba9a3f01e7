"""What to know about weights that are here: a size that surprises, and code that would run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from orchestrator.units import format_bytes
from orchestrator.weights.manifest import Manifest
from orchestrator.weights.selection import WEIGHTS_SUFFIX
from orchestrator.weights.wanted import Wanted

# Catalogue figures are computed from shapes or rounded by who published them; what differs by more is another model.
SIZE_TOLERANCE = 0.02


def notes_on(wanted: Wanted, folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """A sentence each."""
    return (*_size_notes(wanted, manifest), *_code_notes(wanted, folder, manifest))


def _size_notes(wanted: Wanted, manifest: Manifest) -> Iterator[str]:
    sizes = [record.size_bytes for name, record in manifest.files.items() if name.endswith(WEIGHTS_SUFFIX)]
    weights_bytes, expected = sum(sizes), wanted.size_bytes
    if expected and abs(weights_bytes - expected) > SIZE_TOLERANCE * expected:
        yield (
            f"the weights take {format_bytes(weights_bytes)}, and the catalogue says {format_bytes(expected)}: "
            "plans for this model are off by as much"
        )


def _code_notes(wanted: Wanted, folder: Path, manifest: Manifest) -> Iterator[str]:
    if wanted.remote_code:
        yield (
            f"{wanted.model} runs Python code of its publisher (trust_remote_code), as it is at revision "
            f"{manifest.revision[:12]}; read it before you deploy"
        )
        return
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_text("utf-8"))
        if isinstance(config, dict) and "auto_map" in config:
            yield "config.json names code of the publisher's own; it was not fetched and is not run"
