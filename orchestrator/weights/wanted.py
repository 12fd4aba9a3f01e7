"""What `pull` is asked for: whose weights, from where, at which revision."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.catalog.registry import Catalog, load_catalog
from orchestrator.catalog.suggest import suggest
from orchestrator.errors import ConfigError, UnknownModel
from orchestrator.memory.budget import checkpoint_totals
from orchestrator.weights.cache import copy_of
from orchestrator.weights.manifest import read_manifest
from orchestrator.weights.source import HF_ID, NAME, HubSource, Source, check_revision, parse_source


@dataclass(frozen=True)
class Wanted:
    """The weights of `model`: a hub id, or the name somebody gives to what comes from elsewhere.

    remote_code: whether the publisher's code is needed beside them; size_bytes: what the catalogue says of the weights.
    """

    model: str
    source: Source
    remote_code: bool = False
    size_bytes: int | None = None


def want(model: str, revision: str | None = None, origin: str | None = None, catalog: Catalog | None = None) -> Wanted:
    """From the words of a command. Raises `UnknownModel` with near names, `ConfigError` for what does not go together.

    A name of the catalogue is pulled at the catalogue's revision, where that has one.
    """
    source = parse_source(origin) if origin else None
    if revision is not None:
        check_revision(revision)
        if source is not None:
            raise ConfigError("--revision is of the hub; with --from write it into the source: hf://org/name@revision")
    known = catalog or load_catalog()
    found = known.find(model)
    if found is not None:
        entry, checkpoint = found
        hub = HubSource(checkpoint.hf_id, revision or checkpoint.revision)
        size_bytes = checkpoint.size_bytes or checkpoint_totals(known.spec(entry, checkpoint)).size_bytes
        return Wanted(checkpoint.hf_id, source or hub, entry.needs_remote_code, size_bytes)
    if HF_ID.fullmatch(model):
        return Wanted(model, source or HubSource(model, revision))
    if source is not None and NAME.fullmatch(model):
        return Wanted(model, source)
    if (before := _copied(model)) is not None:
        return Wanted(model, before)
    raise UnknownModel(
        f"no model {model!r}{suggest(model, known.names)}; pull a name of the catalogue, a Hugging Face id, "
        "or any name together with --from"
    )


def _copied(model: str) -> Source | None:
    """Where a copy under a name of its own came from; it may be asked for again without saying so."""
    manifest = read_manifest(copy_of(model)) if NAME.fullmatch(model) else None
    return parse_source(manifest.source) if manifest else None
