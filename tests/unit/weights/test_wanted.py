"""What a command asks for: a name of the catalogue at its revision, a hub id, or any name with a source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.catalog.registry import load_catalog
from orchestrator.errors import ConfigError, UnknownModel
from orchestrator.weights.cache import copy_of
from orchestrator.weights.manifest import Manifest, write_manifest
from orchestrator.weights.source import HubSource, StoreSource
from orchestrator.weights.wanted import want

COMMIT = "a" * 40


def test_a_name_of_the_catalogue_is_its_default_checkpoint() -> None:
    kimi = want("kimi-k2")
    assert kimi.model == "moonshotai/Kimi-K2-Instruct"
    assert kimi.source == HubSource("moonshotai/Kimi-K2-Instruct", load_catalog().entries[0].checkpoints[0].revision)
    assert kimi.remote_code
    assert kimi.size_bytes == 1_029_173_256_720
    assert not want("deepseek-v3").remote_code


def test_a_revision_of_the_catalogue_is_pulled_unless_another_is_named(tmp_path: Path) -> None:
    checkpoint = {
        "hf_id": "org/m", "revision": COMMIT, "quantization": "BF16", "config": "mistralai--Mixtral-8x7B-v0.1.json",
        "sources": [{"where": "here", "date": "2026-01-01"}],
    }  # fmt: skip
    entry = {"name": "m", "hf_id": "org/m", "checkpoints": [checkpoint], "default_checkpoint": "org/m"}
    file = tmp_path / "catalog.json"
    file.write_text(json.dumps({"models": [entry]}))
    own = load_catalog(file)
    assert want("m", catalog=own).source == HubSource("org/m", COMMIT)
    assert want("m", "main", catalog=own).source == HubSource("org/m", "main")
    file.write_text(json.dumps({"models": [entry | {"checkpoints": [checkpoint | {"revision": "main"}]}]}))
    with pytest.raises(ConfigError, match="revision"):
        load_catalog(file)


def test_a_hub_id_and_any_name_with_a_source(tmp_path: Path) -> None:
    assert want("org/other", "v1").source == HubSource("org/other", "v1")
    assert want("my-model", origin="s3://bucket/mine").source == StoreSource("s3://bucket/mine")
    assert want("kimi-k2", origin=str(tmp_path)).model == "moonshotai/Kimi-K2-Instruct"


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--revision .* write it into the source"):
        want("org/m", "v1", "s3://bucket/m")
    with pytest.raises(UnknownModel, match="kimi-k2"):
        want("kimi-k3")
    with pytest.raises(UnknownModel, match="together with --from"):
        want("my-model")


def test_a_copy_is_asked_for_again_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    copy_of("mine").mkdir(parents=True)
    write_manifest(copy_of("mine"), Manifest("mine", "s3://bucket/mine", COMMIT, {}))
    assert want("mine") == want("mine", origin="s3://bucket/mine")
    assert want("mine", origin="gs://other/mine").source == StoreSource("gs://other/mine")
