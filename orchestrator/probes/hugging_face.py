"""Models that are neither in the catalogue nor on the disk: their `config.json` from the Hugging Face hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.catalog.models import ModelSpec
from orchestrator.catalog.registry import Catalog, local_model, resolve_model
from orchestrator.errors import ConfigError, UnknownArchitecture, UnknownModel

# (hf_id, file, revision) → where the file lies now
Download = Callable[[str, str, str | None], Path]

_HF_ID = re.compile(r"[\w.-]+/[\w.-]+")
# `config.json` says all, but for checkpoints of ModelOpt, which describe their scheme beside it.
_FILES_THAT_MAY_BE_ABSENT = ("hf_quant_config.json",)


def find_model(name: str, catalog: Catalog | None = None, download: Download | None = None) -> ModelSpec:
    """A model by short name, Hugging Face id or local path, asking the hub only for what nothing else knows.

    Raises `UnknownModel` or `ConfigError`, each in one line.
    """
    try:
        return resolve_model(name, catalog)
    except UnknownArchitecture:
        raise
    except UnknownModel:
        if _HF_ID.fullmatch(name) is None:
            raise
    return fetch_model(name, download=download)


def fetch_model(hf_id: str, revision: str | None = None, download: Download | None = None) -> ModelSpec:
    """The model of a Hugging Face id by its `config.json` alone; no weights are fetched."""
    get = download or _from_hub
    config = get(hf_id, "config.json", revision)
    for name in _FILES_THAT_MAY_BE_ABSENT:
        _fetch_if_there(get, hf_id, name, revision)
    return replace(local_model(config.parent), name=hf_id, checkpoint=hf_id)


def _fetch_if_there(get: Download, hf_id: str, name: str, revision: str | None) -> None:
    try:
        get(hf_id, name, revision)
    except ConfigError:
        return


def _from_hub(hf_id: str, name: str, revision: str | None) -> Path:
    """Download one file into the hub's own cache."""
    # Half a second of imports, which only a model that nothing else knows is worth.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # It tells of every retry where there is no network; the error here is one line.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return Path(hf_hub_download(hf_id, name, revision=revision))
    except GatedRepoError:
        raise UnknownModel(
            f"{hf_id} asks for its licence to be accepted on huggingface.co, and for a token in HF_TOKEN"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise UnknownModel(f"{hf_id} is not on the Hugging Face hub, or not visible without a token") from None
    except LocalEntryNotFoundError:
        raise UnknownModel(f"{hf_id} is not known here, and the Hugging Face hub cannot be reached") from None
    except EntryNotFoundError:
        raise ConfigError(f"{hf_id} has no {name}") from None
    except (HfHubHTTPError, OSError) as error:
        raise UnknownModel(f"{hf_id} could not be asked for on the hub: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
