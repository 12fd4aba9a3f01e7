"""`ensure` builds what is missing or damaged, once, and hands out what is whole."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.demo import DemoModel, DemoOptions, cache, ensure
from orchestrator.demo.manifest import seal
from orchestrator.demo.staging import Progress, staged
from orchestrator.errors import CheckpointUnavailable, ConfigError


class _Builds(list[str]):
    """Stands for the real build: writes one file, and remembers that it was asked."""

    def __call__(
        self,
        model: DemoModel,
        _options: DemoOptions,
        folder: Path,
        claim: Mapping[str, object],
        _progress: Progress,
    ) -> None:
        self.append(folder.name)
        with staged(folder) as fresh:
            (fresh / "model.safetensors").write_text(model.name)
            seal(fresh, claim)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> _Builds:
    counted = _Builds()
    monkeypatch.setattr(cache, "_build", counted)
    return counted


def test_a_model_is_built_once(tmp_path: Path, builds: _Builds) -> None:
    folder = ensure("smol-moe", tmp_path / "new" / "cache")
    assert ensure("smol-moe", tmp_path / "new" / "cache", verify="full") == folder
    assert builds == ["smol-moe-4x2-bf16-seed0"]


def test_other_options_are_another_model(tmp_path: Path, builds: _Builds) -> None:
    assert ensure("smol-moe", tmp_path) != ensure("smol-moe", tmp_path, options={"num_experts": 8})
    assert builds == ["smol-moe-4x2-bf16-seed0", "smol-moe-8x2-bf16-seed0"]


def test_a_damaged_model_is_built_again_and_told(tmp_path: Path, builds: _Builds) -> None:
    folder = ensure("smol-moe", tmp_path)
    (folder / "model.safetensors").write_text("smol-m0e")
    lines: list[str] = []
    ensure("smol-moe", tmp_path, progress=lines.append)
    assert (folder / "model.safetensors").read_text() == "smol-moe"
    assert lines == [f"{folder} has to be built again: model.safetensors holds other bytes than were built"]


def test_a_model_built_while_waiting_for_the_lock_is_not_built_again(
    tmp_path: Path, builds: _Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = iter(["it does not exist", None])
    monkeypatch.setattr(cache, "find_damage", lambda *_args, **_kwargs: next(verdicts))
    ensure("smol-moe", tmp_path)
    assert builds == []


def test_a_missing_package_names_the_install_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ConfigError, match=r"gguf.*run scripts/env cpu, or pip install 'moe-orchestrator\[cpu,demo\]'"):
        ensure("smol-moe", tmp_path)


def test_a_cache_that_cannot_be_a_folder_is_one_clear_line(tmp_path: Path, builds: _Builds) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointUnavailable, match=r"building smol-moe failed in .*choose another cache folder"):
        ensure("smol-moe", tmp_path / "file" / "cache")
