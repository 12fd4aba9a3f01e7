"""Where weights lie on a machine. One variable decides, the hub's own: HF_HOME.

$HF_HOME, by default ~/.cache/huggingface
    hub/models--org--name/snapshots/COMMIT/    from the hub, in its own layout: engines find them by id and revision
    orchestrator/org--name/                    from a folder or an object store, whose files have no commit
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.weights.manifest import MANIFEST, Manifest, complete, read_manifest
from orchestrator.weights.source import COMMIT, HF_ID, NAME


@dataclass(frozen=True)
class Local:
    """Weights that are whole on this machine."""

    folder: Path
    manifest: Manifest


def hf_home() -> Path:
    """As huggingface_hub has it, but read when asked, not when imported."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.path.expandvars(os.environ.get("HF_HOME") or usual)).expanduser()


def hub_folder() -> Path:
    """The hub's cache, where HF_HUB_CACHE may have moved it."""
    moved = os.environ.get("HF_HUB_CACHE")
    return Path(os.path.expandvars(moved)).expanduser() if moved else hf_home() / "hub"


def repository(hf_id: str) -> Path:
    return hub_folder() / f"models--{hf_id.replace('/', '--')}"


def snapshot(hf_id: str, commit: str) -> Path:
    return repository(hf_id) / "snapshots" / commit


def copy_of(model: str) -> Path:
    """The folder of a model that came from elsewhere than the hub."""
    return hf_home() / "orchestrator" / model.replace("/", "--")


def may_name(model: str) -> bool:
    """Whether `model` can be the name of something in the cache, and is no path."""
    return HF_ID.fullmatch(model) is not None or NAME.fullmatch(model) is not None


def find(model: str, revision: str | None = None) -> Local | None:
    """The weights of a model, if they are whole here: those pulled last, of `revision` where one is asked for."""
    found = (_whole(folder) for folder in _last_first(model, revision))
    return next((local for local in found if local is not None), None)


def pulled_last(model: str, revision: str | None = None) -> Path | None:
    """The folder that `find` looks at first, whether or not its files are whole."""
    return next(iter(_last_first(model, revision)), None)


def _last_first(model: str, revision: str | None) -> list[Path]:
    """Folders with a manifest. A branch or a tag stands for the commit that it had when the hub was last asked."""
    commit = revision and (read_ref(model, revision) or revision)
    folders = [copy_of(model), *(repository(model) / "snapshots").glob("*")]
    manifests = {folder: read_manifest(folder) for folder in folders}
    matching = [folder for folder, held in manifests.items() if held and commit in (None, held.revision)]
    return sorted(matching, key=lambda folder: -(folder / MANIFEST).stat().st_mtime_ns)


def _whole(folder: Path) -> Local | None:
    manifest = complete(folder)
    return Local(folder, manifest) if manifest else None


def read_ref(hf_id: str, revision: str) -> str | None:
    """The commit that a branch or tag had when it was last asked for, from the hub's cache."""
    try:
        commit = (repository(hf_id) / "refs" / revision).read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.fullmatch(commit) else None


def write_ref(hf_id: str, revision: str, commit: str) -> None:
    """Remember it, as the hub's own library does."""
    path = repository(hf_id) / "refs" / revision
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(commit)
