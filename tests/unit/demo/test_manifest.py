"""A sealed folder is recognised in no time, and nothing that happened to it goes unseen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.demo.manifest import MANIFEST, SEALED_MTIME_S, find_damage, identity, seal

CLAIM = identity("smol-moe", {"seed": 0})


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(4096))
    seal(tmp_path, CLAIM)
    return tmp_path


def _truncate(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 4000)


def _flip_a_byte(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(2048)
        file.write(b"\x01")


def _lose_a_file(folder: Path) -> None:
    (folder / "config.json").unlink()


def _lose_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def _break_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:-40])


def _empty_the_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[]")


def test_a_sealed_folder_is_whole(sealed: Path) -> None:
    assert find_damage(sealed, CLAIM) is None
    assert find_damage(sealed, CLAIM, full=True) is None


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_truncate, "model.safetensors has 4000 bytes, not 4096"),
        (_flip_a_byte, "model.safetensors holds other bytes than were built"),
        (_lose_a_file, "config.json is missing"),
        (_lose_the_manifest, "MANIFEST.json is missing"),
        (_break_the_manifest, "MANIFEST.json cannot be read"),
        (_empty_the_manifest, "MANIFEST.json cannot be read"),
    ],
)
def test_damage_is_found_by_the_quick_check(sealed: Path, damage: Callable[[Path], None], told: str) -> None:
    damage(sealed)
    assert find_damage(sealed, CLAIM) == told


def test_bytes_that_rot_without_a_trace_are_found_by_the_full_check(sealed: Path) -> None:
    _flip_a_byte(sealed)
    os.utime(sealed / "model.safetensors", (SEALED_MTIME_S, SEALED_MTIME_S))
    assert find_damage(sealed, CLAIM) is None
    assert find_damage(sealed, CLAIM, full=True) == "model.safetensors holds other bytes than were built"


def test_a_copy_with_new_times_is_whole_and_sealed_again(sealed: Path) -> None:
    weights = sealed / "model.safetensors"
    os.utime(weights, (1, 1))
    assert find_damage(sealed, CLAIM) is None
    assert weights.stat().st_mtime == SEALED_MTIME_S


@pytest.mark.parametrize(
    "other",
    [
        identity("smol-moe", {"seed": 1}),
        identity("kimi-k2-mini", {"seed": 0}),
        {**CLAIM, "format_version": 0},
    ],
)
def test_a_folder_of_another_claim_does_not_pass(sealed: Path, other: dict[str, object]) -> None:
    assert find_damage(sealed, other) == "it was built by another version or with other options"


def test_a_manifest_does_not_depend_on_when_it_was_written(sealed: Path) -> None:
    """Equal contents give equal manifests, so that whole folders can be compared byte for byte."""
    before = (sealed / MANIFEST).read_bytes()
    (sealed / MANIFEST).unlink()
    seal(sealed, CLAIM)
    assert (sealed / MANIFEST).read_bytes() == before
    assert set(json.loads(before)["files"]) == {"config.json", "model.safetensors"}
