"""Weights brought to this machine: what is here already is looked for first, then what is missing is fetched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights import cache
from orchestrator.weights.checkpoint import check_checkpoint
from orchestrator.weights.hub import HubOrigin
from orchestrator.weights.lock import held
from orchestrator.weights.manifest import MANIFEST, Damage, complete, damage_by_size, forget, read_manifest, touched
from orchestrator.weights.meter import Meter
from orchestrator.weights.notes import notes_on
from orchestrator.weights.origin import Origin, Unreachable
from orchestrator.weights.source import MAIN, HubSource, StoreSource
from orchestrator.weights.store import StoreOrigin
from orchestrator.weights.transfer import Say, Transfer, damage_by_bytes, has_code
from orchestrator.weights.wanted import Wanted

State = Literal["fetched", "already there", "checked"]


@dataclass(frozen=True)
class Outcome:
    """Where the weights are now, what they are, and what to know about them."""

    model: str
    folder: Path
    source: str
    revision: str
    state: State
    size_bytes: int
    fetched_bytes: int = 0
    notes: tuple[str, ...] = ()


def pull(wanted: Wanted, to: Path | None, meter: Meter, say: Say) -> Outcome:
    """Have the weights whole in `to`, or in this machine's cache; fetch no byte that is here.

    Raises `UnknownModel` or `CheckpointUnavailable`, each a line with the way out.
    """
    with _plain_disk_errors(to or cache.hf_home()):
        if (local := _here_without_asking(wanted, to)) is not None:
            return _already_there(wanted, local)
        origin = _origin(wanted)
        meter.begin(f"asking {wanted.source}", 0)
        try:
            listing = origin.listing()
        except Unreachable as error:
            return _what_is_here(wanted, to, error)
        folder = to or _place(wanted, listing.revision)
        # Looked at before the lock is taken, which a disk that is only read here would refuse.
        if (local := _untouched(folder, listing.revision, wanted)) is not None:
            return _already_there(wanted, local)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, lambda line: meter.begin(line, 0), say):
            arrived = Transfer(wanted, origin, listing, folder, meter, say).run()
        _remember_last(wanted, folder, arrived.manifest.revision)
    state: State = "fetched" if arrived.moved_bytes else "already there"
    return replace(_outcome(wanted, cache.Local(folder, arrived.manifest), state), fetched_bytes=arrived.moved_bytes)


def check(wanted: Wanted, to: Path | None, meter: Meter) -> Outcome:
    """Read every byte of what is here and compare it with what was fetched.

    Raises `CheckpointUnavailable` naming the damaged files; from then on the folder does not look whole.
    """
    folder = to or _cached_folder(wanted)
    manifest = read_manifest(folder) if folder else None
    if folder is None or manifest is None:
        where = f"in {folder}" if folder else f"in the cache ({cache.hf_home()})"
        raise CheckpointUnavailable(f"{wanted.model} is not whole {where}; fetch it with: orchestrator pull")
    with _plain_disk_errors(folder):
        damages = damage_by_size(folder, manifest) or damage_by_bytes(folder, manifest, manifest.files, meter)
        if damages:
            with contextlib.suppress(OSError):  # a read-only disk; the error says it all the same
                forget(folder)
            raise CheckpointUnavailable(f"{folder}: {_listed(damages)}; pull again, and they are fetched anew")
    check_checkpoint(folder)
    return _outcome(wanted, cache.Local(folder, manifest), "checked")


# --- what is here already ------------------------------------------------------------------------------


def _here_without_asking(wanted: Wanted, to: Path | None) -> cache.Local | None:
    """Whole weights at the very commit that is wanted: nobody need be asked, so no network is needed."""
    commit = wanted.source.commit if isinstance(wanted.source, HubSource) else None
    if commit is None:
        return None
    local = _at(to) if to else cache.find(wanted.model, commit)
    return _untouched(local.folder, commit, wanted) if local else None


def _untouched(folder: Path, revision: str, wanted: Wanted) -> cache.Local | None:
    """What `folder` holds, if it is whole, of that revision, and as it was when its bytes were last read."""
    local = _at(folder)
    if local is None or local.manifest.revision != revision or not has_code(local.manifest, wanted):
        return None
    return None if touched(folder, local.manifest) else local


def _already_there(wanted: Wanted, local: cache.Local) -> Outcome:
    _remember_last(wanted, local.folder, local.manifest.revision)
    return _outcome(wanted, local, "already there")


def _what_is_here(wanted: Wanted, to: Path | None, error: Unreachable) -> Outcome:
    """Without a network, what was fetched before has to do; raises `error` where there is nothing."""
    revision = wanted.source.revision if isinstance(wanted.source, HubSource) else None
    local = _at(to) if to else cache.find(wanted.model, revision)
    if local is None or not has_code(local.manifest, wanted):
        raise error
    if isinstance(wanted.source, StoreSource) and local.manifest.source != str(wanted.source):
        raise error  # somebody asked for another copy than the one that is here
    note = f"{wanted.source} could not be asked; what is here was fetched as {local.manifest.source}"
    return replace(_outcome(wanted, local, "already there"), notes=(note,))


def _at(folder: Path) -> cache.Local | None:
    manifest = complete(folder)
    return cache.Local(folder, manifest) if manifest else None


def _cached_folder(wanted: Wanted) -> Path | None:
    """Also where files are missing: the check is to name them."""
    return cache.pulled_last(wanted.model, wanted.source.revision if isinstance(wanted.source, HubSource) else None)


def _origin(wanted: Wanted) -> Origin:
    return HubOrigin(wanted.source) if isinstance(wanted.source, HubSource) else StoreOrigin(wanted.source)


def _place(wanted: Wanted, revision: str) -> Path:
    """The hub's own folder for the hub's own model, else the one for copies."""
    if isinstance(wanted.source, HubSource) and wanted.source.hf_id == wanted.model:
        return cache.snapshot(wanted.model, revision)
    return cache.copy_of(wanted.model)


def _remember_last(wanted: Wanted, folder: Path, commit: str) -> None:
    """What was pulled last is what the model's name stands for; of a branch the hub's library is told in its way."""
    source = wanted.source
    with contextlib.suppress(OSError):  # a read-only disk remembers nothing
        os.utime(folder / MANIFEST)
        if isinstance(source, HubSource) and source.commit is None and folder == cache.snapshot(source.hf_id, commit):
            cache.write_ref(source.hf_id, source.revision or MAIN, commit)


def _outcome(wanted: Wanted, local: cache.Local, state: State) -> Outcome:
    manifest, notes = local.manifest, notes_on(wanted, local.folder, local.manifest)
    return Outcome(
        wanted.model, local.folder, manifest.source, manifest.revision, state, manifest.size_bytes, notes=notes
    )


def _listed(damages: Sequence[Damage]) -> str:
    more = f" and {len(damages) - 3} more" if len(damages) > 3 else ""
    return ", ".join(str(damage) for damage in damages[:3]) + more


@contextlib.contextmanager
def _plain_disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointUnavailable(
            f"{error.filename or folder}: {error.strerror or error}; name another disk with HF_HOME or --to"
        ) from error
