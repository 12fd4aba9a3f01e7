"""A manifest is written last and believed only as far as the files bear it out."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights.manifest import (
    MANIFEST,
    Manifest,
    complete,
    damage_by_size,
    digests_of,
    forget,
    read_manifest,
    record_of,
    safe_name,
    touched,
    write_manifest,
)

BODY = b"weights"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(BODY)
    record = record_of(tmp_path / "a.bin", digests_of(tmp_path / "a.bin").sha256)
    write_manifest(tmp_path, Manifest("org/m", "hf://org/m", "c" * 40, {"a.bin": record}))
    return tmp_path


def test_what_is_written_is_read_back(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    assert (manifest.model, manifest.revision, manifest.size_bytes) == ("org/m", "c" * 40, len(BODY))
    assert manifest.files["a.bin"].sha256 == hashlib.sha256(BODY).hexdigest()
    assert complete(folder) == manifest
    assert [path.name for path in folder.iterdir() if path.name not in (MANIFEST, "a.bin")] == []


def test_a_blob_is_named_as_git_names_it(folder: Path) -> None:
    """`git hash-object` of a file with these bytes."""
    (folder / "b").write_bytes(b"hello\n")
    assert digests_of(folder / "b").git_sha1 == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_file_that_is_gone_or_cut_short_is_named(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    (folder / "a.bin").write_bytes(BODY[:-1])
    assert str(damage_by_size(folder, manifest)[0]) == "a.bin has 6 bytes instead of 7"
    (folder / "a.bin").unlink()
    assert str(damage_by_size(folder, manifest)[0]) == "a.bin is missing"
    assert complete(folder) is None


def test_a_file_that_was_written_to_since_is_told(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert manifest is not None
    assert touched(folder, manifest) == ()
    os.utime(folder / "a.bin", ns=(1, 1))
    assert touched(folder, manifest) == ("a.bin",)


@pytest.mark.parametrize("change", [{"format_version": 2}, {"files": {"a": {}}}, {"files": 3}, {"extra": 1}])
def test_a_manifest_of_another_kind_is_none(folder: Path, change: dict[str, object]) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(document | change))
    assert read_manifest(folder) is None


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "\udcff"])
def test_a_damaged_manifest_is_none(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_manifest(folder) is None
    assert complete(folder) is None


def test_a_forgotten_folder_does_not_look_whole(folder: Path) -> None:
    forget(folder)
    forget(folder)
    assert complete(folder) is None


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a\\b"])
def test_no_file_leads_out_of_its_folder(name: str) -> None:
    with pytest.raises(CheckpointUnavailable, match="leads out of its folder"):
        safe_name(name)
