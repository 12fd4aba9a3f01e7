"""What a model's name stands for: a demo, a folder that is whole, or a Hugging Face id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import demo
from orchestrator.deploy.models import known_models, resolve
from orchestrator.errors import ConfigError, UnknownModel
from tests.unit.weights.test_checkpoint import SHARD


def say(_line: str) -> None:
    return None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").write_bytes(SHARD)
    return tmp_path / "model"


def test_a_demo_is_built_where_it_is_kept_and_has_its_defaults(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ensure(name: str, cache: Path, **_options: Any) -> Path:
        assert (name, cache) == ("smol-moe", tmp_path / "cache")
        return folder

    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "ensure", ensure)
    found = resolve("smol-moe", say)
    assert (found.source, found.weights_bytes) == (str(folder), len(SHARD))
    assert found.aliases == ("HuggingFaceTB/SmolLM2-135M-Instruct",)
    assert found.engine["max_model_len"] == 2048


def test_a_folder_is_checked_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(folder), say).weights_bytes == len(SHARD)
    monkeypatch.chdir(folder.parent)
    assert resolve("./model", say).source == str(folder)
    (folder / "model.safetensors").write_bytes(SHARD[:-1])
    with pytest.raises(ConfigError, match="damaged"):
        resolve(str(folder), say)


def test_a_hugging_face_id_is_its_own_alias() -> None:
    found = resolve("org/Some-Model.v1", say)
    assert (found.source, found.aliases, found.weights_bytes) == ("org/Some-Model.v1", ("org/Some-Model.v1",), None)


@pytest.mark.parametrize("model", ["./absent", "/absent/folder", "~/absent", "../absent", "a/b/c", "gpt 5", "a//b"])
def test_what_is_none_of_these_is_unknown_with_a_way_out(model: str) -> None:
    with pytest.raises(UnknownModel, match=r"no model .*\n?A folder with config.json, or a Hugging Face id"):
        resolve(model, say)


def test_a_near_name_is_suggested() -> None:
    assert {"kimi-k2-mini", "smol-moe"} <= set(known_models())
    with pytest.raises(UnknownModel, match="did you mean smol-moe"):
        resolve("smolmoe", say)
