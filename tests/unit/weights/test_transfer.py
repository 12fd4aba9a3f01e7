"""A transfer moves what is missing, refuses a disk that is too small before it begins, and seals only what is right."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights import pull as pulling
from orchestrator.weights.manifest import MANIFEST, read_manifest
from orchestrator.weights.meter import Meter
from orchestrator.weights.origin import Advance, Listing, RemoteFile, Unreachable
from orchestrator.weights.source import StoreSource
from orchestrator.weights.transfer import Transfer
from orchestrator.weights.wanted import Wanted
from tests.unit.weights.test_checkpoint import SHARD

INDEX = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
FILES = {
    "config.json": b"{}", "model.safetensors.index.json": INDEX,
    "model-1.safetensors": SHARD, "model-2.safetensors": SHARD,
}  # fmt: skip
WANTED = Wanted("m", StoreSource("s3://bucket/m"))


class Shelf:
    """An origin in memory that counts what it gives, and may give other bytes than it promises."""

    def __init__(self, files: Mapping[str, bytes], revision: str = "1" * 40, digests: bool = True) -> None:
        self.files, self.revision, self.digests = dict(files), revision, digests
        self.given: Counter[str] = Counter()
        self.wrong: dict[str, bytes] = {}
        self.away = False

    def listing(self) -> Listing:
        if self.away:
            raise Unreachable("no network")
        rows = [
            RemoteFile(name, len(body), hashlib.sha256(body).hexdigest() if self.digests else None)
            for name, body in self.files.items()
        ]
        return Listing(self.revision, {row.name: row for row in rows})

    def fetch(self, listing: Listing, file: RemoteFile, folder: Path, advance: Advance) -> None:
        body = self.wrong.get(file.name, self.files[file.name])
        (folder / file.name).write_bytes(body)
        self.given[file.name] += 1
        advance(len(body))

    def kept_bytes(self, listing: Listing, file: RemoteFile, folder: Path) -> int:
        return 0


def meter() -> Meter:
    return Meter(lambda: 0.0)


def bring(shelf: Shelf, folder: Path) -> list[str]:
    """Run a transfer; what was said."""
    said: list[str] = []
    Transfer(WANTED, shelf, shelf.listing(), folder, meter(), said.append).run()
    return said


def test_the_manifest_is_written_last_and_names_every_file(tmp_path: Path) -> None:
    shelf = Shelf(FILES)
    assert bring(shelf, tmp_path) == []
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert {name: record.sha256 for name, record in manifest.files.items()} == {
        name: hashlib.sha256(body).hexdigest() for name, body in FILES.items()
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, MANIFEST])


def test_what_is_there_is_not_moved_again(tmp_path: Path) -> None:
    shelf = Shelf(FILES)
    bring(shelf, tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / "model-2.safetensors").write_bytes(SHARD[:-1])
    said = bring(shelf, tmp_path)
    assert said == [f"model-2.safetensors has {len(SHARD) - 1} bytes instead of {len(SHARD)}; it is fetched anew"]
    assert shelf.given == Counter({**dict.fromkeys(FILES, 1), "model-2.safetensors": 2})


class Usage(NamedTuple):
    """As `shutil.disk_usage` gives it."""

    total: int
    used: int
    free: int


def test_too_little_disk_is_told_before_any_weight_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000, 900, 100))
    needed = 2 * len(SHARD)
    with pytest.raises(
        CheckpointUnavailable, match=rf"too little disk: m needs {needed} B more in .*, and 100 B are free"
    ):
        bring(shelf, tmp_path)
    assert set(shelf.given) == {"config.json", "model.safetensors.index.json"}
    assert read_manifest(tmp_path) is None
    # What is there already is not asked for twice.
    (tmp_path / "model-1.safetensors").write_bytes(SHARD)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000, 0, len(SHARD)))
    bring(shelf, tmp_path)
    assert read_manifest(tmp_path) is not None


def test_a_file_that_stays_wrong_leaves_no_manifest(tmp_path: Path) -> None:
    shelf = Shelf(FILES)
    shelf.wrong["model-1.safetensors"] = SHARD[:-1] + b"!"
    with pytest.raises(CheckpointUnavailable, match=r"model-1\.safetensors is damaged .* for the second time"):
        bring(shelf, tmp_path)
    assert shelf.given["model-1.safetensors"] == 2
    assert read_manifest(tmp_path) is None


def test_an_index_that_names_a_shard_nobody_has_is_refused(tmp_path: Path) -> None:
    files = {name: body for name, body in FILES.items() if name != "model-2.safetensors"}
    with pytest.raises(CheckpointUnavailable, match=r"s3://bucket/m: .* names model-2\.safetensors"):
        bring(Shelf(files), tmp_path)


def test_another_revision_without_digests_is_moved_whole_and_old_files_go(tmp_path: Path) -> None:
    bring(Shelf({**FILES, "vocab.txt": b"old"}, digests=False), tmp_path)
    newer = Shelf(FILES, revision="2" * 40, digests=False)
    bring(newer, tmp_path)
    assert newer.given == Counter(dict.fromkeys(FILES, 1))
    assert not (tmp_path / "vocab.txt").exists()


def test_another_revision_with_digests_moves_only_what_differs(tmp_path: Path) -> None:
    bring(Shelf(FILES), tmp_path)
    newer = Shelf({**FILES, "config.json": b'{"a": 1}'}, revision="2" * 40)
    bring(newer, tmp_path)
    assert newer.given == Counter({"config.json": 1})


def test_a_transfer_that_broke_off_without_digests_goes_on_with_the_same_revision_only(tmp_path: Path) -> None:
    cut = Shelf({**FILES, "model.safetensors.index.json": b"{}"}, digests=False)
    with pytest.raises(CheckpointUnavailable):
        bring(cut, tmp_path)
    mended = Shelf(FILES, digests=False)
    bring(mended, tmp_path)
    assert "config.json" not in mended.given
    (tmp_path / MANIFEST).unlink()
    other = Shelf(FILES, revision="3" * 40, digests=False)
    bring(other, tmp_path)
    assert set(other.given) == set(FILES)


def test_a_disk_that_is_only_read_serves_what_is_whole_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shared disk may be mounted on the nodes: no lock can be taken there, and none is needed."""
    shelf = Shelf(FILES)
    bring(shelf, tmp_path)
    monkeypatch.setattr(pulling, "_origin", lambda _wanted: shelf)
    monkeypatch.setattr(pulling, "held", lambda *_args: pytest.fail("a lock was taken"))
    assert pulling.pull(WANTED, tmp_path, meter(), print).state == "already there"
    shelf.away = True
    offline = pulling.pull(WANTED, tmp_path, meter(), print)
    assert offline.state == "already there"
    assert "could not be asked" in offline.notes[0]
    for elsewhere, folder in ((WANTED, tmp_path / "empty"), (Wanted("m", StoreSource("s3://bucket/n")), tmp_path)):
        with pytest.raises(Unreachable):
            pulling.pull(elsewhere, folder, meter(), print)


def test_a_check_reads_every_byte_and_what_it_finds_damaged_is_not_whole_any_more(tmp_path: Path) -> None:
    bring(Shelf(FILES), tmp_path)
    assert pulling.check(WANTED, tmp_path, meter()).state == "checked"
    (tmp_path / "config.json").write_bytes(b"[]")
    with pytest.raises(CheckpointUnavailable, match=r"config\.json holds other bytes than were fetched; pull again"):
        pulling.check(WANTED, tmp_path, meter())
    assert read_manifest(tmp_path) is None
