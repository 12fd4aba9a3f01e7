"""What a model's name stands for when it is deployed: where its weights are, what else it is called, its defaults."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import demo
from orchestrator.catalog.entries import CatalogEntry, Checkpoint
from orchestrator.catalog.registry import Catalog, load_catalog
from orchestrator.errors import UnknownModel
from orchestrator.memory.budget import checkpoint_totals
from orchestrator.store.home import subfolder
from orchestrator.units import GIB
from orchestrator.weights import cache as weights
from orchestrator.weights import pins
from orchestrator.weights.checkpoint import check_checkpoint
from orchestrator.weights.source import HF_ID


@dataclass(frozen=True)
class Deployable:
    """A model that can be handed to the engine. `weights_bytes` is None where nothing is known of its size."""

    source: str
    aliases: tuple[str, ...] = ()
    weights_bytes: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _DemoDefaults:
    """How a demo model is served when nothing else is said."""

    aliases: tuple[str, ...]
    engine: Mapping[str, Any]
    env: Mapping[str, str]


# Warming up runs one pass of the largest batch: on two cores 512 tokens take seconds, vLLM's default a minute.
_SMALL = {"max_model_len": 2048, "max_num_batched_tokens": 512}
# Enough cache for 16 conversations of full length; a demo must fit beside the rest of a laptop.
DEMOS = {
    "smol-moe": _DemoDefaults(
        # The model it was made from: it gives the same answers.
        ("HuggingFaceTB/SmolLM2-135M-Instruct",),
        {**_SMALL, "max_num_seqs": 32, "kv_cache_memory_bytes": GIB},
        {},
    ),
    "kimi-k2-mini": _DemoDefaults(
        (),
        {**_SMALL, "max_num_seqs": 16, "kv_cache_memory_bytes": GIB // 4},
        {},
    ),
}


def known_models(catalog: Catalog | None = None) -> dict[str, str]:
    """The names that `deploy` takes without a folder or a Hugging Face id, with a line on each."""
    demos = {name: demo.DEMO_MODELS[name].summary for name in sorted(DEMOS)}
    published = {
        entry.name: f"{entry.default_checkpoint} ({entry.checkpoint(entry.default_checkpoint).quantization})"
        for entry in (catalog or load_catalog()).entries
    }
    return {**demos, **published}


def resolve(
    model: str, say: Callable[[str], None], catalog: Catalog | None = None, *, from_cache: bool = True
) -> Deployable:
    """What `model` stands for: a demo (built if need be), a folder, a name of the catalogue, or a Hugging Face id.

    Weights that `pull` brought whole into this machine's cache stand for the model, and are loaded without any
    network; not with `from_cache=False`, for engines on machines whose cache lies elsewhere: those load the hub's id
    at the commit that was pulled last.

    Raises `UnknownModel` with near names, or `ConfigError` naming the file that is missing or damaged.
    """
    if model in DEMOS:
        return _demo(model, say)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Deployable(str(folder.resolve()), weights_bytes=check_checkpoint(folder))
    known = catalog or load_catalog()
    if (found := known.find(model)) is not None:
        return _published(known, *found, from_cache, say)
    local = weights.find(model) if from_cache and weights.may_name(model) else None
    if local is not None:
        return Deployable(str(local.folder), (model,) if HF_ID.fullmatch(model) else (), check_checkpoint(local.folder))
    if HF_ID.fullmatch(model):
        revision = pins.pinned(model)
        return Deployable(model, aliases=(model,), engine={"revision": revision} if revision else {})
    near = difflib.get_close_matches(model, known_models(known), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`orchestrator models` lists the names."
    raise UnknownModel(f"no model {model!r}; {hint} A folder with config.json, or a Hugging Face id, will do too.")


def weights_bytes(catalog: Catalog, entry: CatalogEntry) -> int:
    """Bytes of the weights of a catalogued model's default checkpoint."""
    return checkpoint_totals(catalog.spec(entry, entry.checkpoint(entry.default_checkpoint))).size_bytes


def _published(
    catalog: Catalog, entry: CatalogEntry, checkpoint: Checkpoint, from_cache: bool, say: Callable[[str], None]
) -> Deployable:
    """A model of the catalogue: the engine fetches its default checkpoint; the publisher's id names it too."""
    aliases = tuple(dict.fromkeys((entry.hf_id, checkpoint.hf_id)))
    if from_cache and (local := weights.find(checkpoint.hf_id, checkpoint.revision)) is not None:
        code = _own_code(entry, local.manifest.revision, say) if _has_code(local) else {}
        return Deployable(str(local.folder), aliases, check_checkpoint(local.folder), code)
    size_bytes = checkpoint_totals(catalog.spec(entry, checkpoint)).size_bytes
    revision = checkpoint.revision or pins.pinned(checkpoint.hf_id)
    return Deployable(checkpoint.hf_id, aliases, size_bytes, _at_revision(entry, revision, say))


def _at_revision(entry: CatalogEntry, revision: str | None, say: Callable[[str], None]) -> dict[str, Any]:
    """The engine arguments by which every node loads the same commit, where one is known."""
    if revision is None and entry.needs_remote_code:
        say(f"{entry.name} needs its publisher's code at a known revision: run `orchestrator pull {entry.name}` first")
    if revision is None:
        return {}
    return {"revision": revision, "code_revision": revision, **_own_code(entry, revision, say)}


def _own_code(entry: CatalogEntry, revision: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Publishers' code runs only where the catalogue names the model for it, only at a known revision, and aloud."""
    if not entry.needs_remote_code:
        return {}
    say(f"warning: {entry.name} runs Python code of its publisher (trust_remote_code) at revision {revision[:12]}")
    return {"trust_remote_code": True}


def _has_code(local: weights.Local) -> bool:
    return any(name.endswith(".py") for name in local.manifest.files)


def _demo(name: str, say: Callable[[str], None]) -> Deployable:
    defaults = DEMOS[name]
    folder = demo.ensure(name, subfolder("cache"), progress=say)
    return Deployable(str(folder), defaults.aliases, check_checkpoint(folder), defaults.engine, defaults.env)
