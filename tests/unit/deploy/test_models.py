"""What a model's name stands for: a demo, a folder that is whole, or a Hugging Face id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import demo
from orchestrator.deploy.models import known_models, resolve
from orchestrator.errors import ConfigError, UnknownModel
from orchestrator.weights import cache, pins
from orchestrator.weights.manifest import Manifest, record_of, write_manifest
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


def test_a_hugging_face_id_is_its_own_alias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
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


COMMIT = "c" * 40
KIMI = "moonshotai/Kimi-K2-Instruct"


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Puts whole weights into this machine's cache."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))

    def put(target: Path, hf_id: str, *further: str) -> Path:
        target.mkdir(parents=True)
        for name in ("config.json", *further):
            (target / name).write_text("{}")
        (target / "model.safetensors").write_bytes(SHARD)
        names = ("config.json", "model.safetensors", *further)
        write_manifest(target, Manifest(hf_id, "test", COMMIT, {name: record_of(target / name, "") for name in names}))
        return target

    return put


def test_weights_that_were_pulled_whole_stand_for_their_model(cached: Callable[..., Path]) -> None:
    target = cached(cache.snapshot("deepseek-ai/DeepSeek-V3", COMMIT), "deepseek-ai/DeepSeek-V3")
    for name in ("deepseek-v3", "deepseek-ai/DeepSeek-V3"):
        found = resolve(name, say)
        assert (found.source, found.weights_bytes) == (str(target), len(SHARD))
        assert "deepseek-ai/DeepSeek-V3" in found.aliases
    (target / "config.json").unlink()
    assert resolve("deepseek-v3", say).source == "deepseek-ai/DeepSeek-V3"


def test_an_engine_elsewhere_loads_the_hubs_id_at_the_commit_that_was_pulled(cached: Callable[..., Path]) -> None:
    """The folder of this machine's cache means nothing there."""
    cached(cache.snapshot("org/m", COMMIT), "org/m")
    assert resolve("org/m", say).source.endswith(COMMIT)
    assert resolve("org/m", say, from_cache=False).engine == {}
    pins.remember("org/m", COMMIT)
    found = resolve("org/m", say, from_cache=False)
    assert (found.source, found.engine) == ("org/m", {"revision": COMMIT})


def test_a_copy_under_a_name_of_its_own_is_found(cached: Callable[..., Path]) -> None:
    target = cached(cache.copy_of("my-model"), "my-model")
    assert resolve("my-model", say).source == str(target)
    assert resolve("my-model", say).aliases == ()


def test_a_publishers_code_runs_by_name_at_a_known_revision_and_aloud(cached: Callable[..., Path]) -> None:
    said: list[str] = []
    assert resolve("kimi-k2", said.append).engine == {}
    assert "run `orchestrator pull kimi-k2` first" in said[0]
    pins.remember(KIMI, COMMIT)
    pinned = {"revision": COMMIT, "code_revision": COMMIT, "trust_remote_code": True}
    assert resolve("kimi-k2", said.append).engine == pinned
    assert said[1].startswith("warning: kimi-k2 runs Python code of its publisher")
    assert COMMIT[:12] in said[1]
    cached(cache.snapshot(KIMI, COMMIT), KIMI, "tokenization_kimi.py")
    assert resolve("kimi-k2", said.append).engine == {"trust_remote_code": True}
    assert len(said) == 3


def test_code_that_the_catalogue_does_not_name_is_not_run(cached: Callable[..., Path]) -> None:
    cached(cache.snapshot("org/m", COMMIT), "org/m", "modeling_own.py")
    assert resolve("org/m", say).engine == {}
