"""Weights are found where the hub's own library has them, or where a copy was put; what was pulled last counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.weights import cache, pins
from orchestrator.weights.manifest import MANIFEST, Manifest, record_of, write_manifest

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))


def whole(folder: Path, revision: str, at_s: int) -> Path:
    """A folder that was pulled at some time."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_manifest(
        folder, Manifest("org/m", "hf://org/m", revision, {"config.json": record_of(folder / "config.json", "")})
    )
    os.utime(folder / MANIFEST, (at_s, at_s))
    return folder


def test_one_variable_moves_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", "$DISK/hf")
    monkeypatch.setenv("DISK", "/mnt/nvme")
    assert cache.snapshot("org/m", FIRST) == Path(f"/mnt/nvme/hf/hub/models--org--m/snapshots/{FIRST}")
    assert cache.copy_of("org/m") == Path("/mnt/nvme/hf/orchestrator/org--m")
    monkeypatch.setenv("HF_HUB_CACHE", "/mnt/hub")
    assert cache.repository("org/m") == Path("/mnt/hub/models--org--m")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.hf_home() == tmp_path / "huggingface"


def test_nothing_is_found_where_nothing_is_whole() -> None:
    assert cache.find("org/m") is None
    folder = whole(cache.snapshot("org/m", FIRST), FIRST, 1)
    (folder / "config.json").unlink()
    assert cache.find("org/m") is None
    assert cache.pulled_last("org/m") == folder


def test_what_was_pulled_last_counts_and_a_revision_picks_its_own() -> None:
    first = whole(cache.snapshot("org/m", FIRST), FIRST, 1)
    copy = whole(cache.copy_of("org/m"), "f" * 40, 2)
    second = whole(cache.snapshot("org/m", SECOND), SECOND, 3)
    found = cache.find("org/m")
    assert found is not None
    assert found.folder == second
    os.utime(copy / MANIFEST, (9, 9))
    assert [local.folder for local in [cache.find("org/m")] if local] == [copy]
    assert [local.folder for local in [cache.find("org/m", FIRST)] if local] == [first]
    assert cache.find("org/m", "3" * 40) is None


def test_a_branch_is_what_it_was_when_the_hub_was_asked() -> None:
    first = whole(cache.snapshot("org/m", FIRST), FIRST, 1)
    assert cache.find("org/m", "v1") is None
    cache.write_ref("org/m", "v1", FIRST)
    assert [local.folder for local in [cache.find("org/m", "v1")] if local] == [first]


@pytest.mark.parametrize(
    ("model", "is_name"), [("org/m", True), ("m", True), ("./m", False), ("~/m", False), ("a/b/c", False)]
)
def test_a_path_is_no_name(model: str, is_name: bool) -> None:
    assert cache.may_name(model) is is_name


def test_the_commit_that_was_pulled_is_remembered_and_a_copys_digest_is_not() -> None:
    assert pins.pinned("org/m") is None
    pins.remember("org/m", FIRST)
    pins.remember("org/other", SECOND)
    pins.remember("org/m", "not-a-commit")
    assert (pins.pinned("org/m"), pins.pinned("org/other")) == (FIRST, SECOND)
