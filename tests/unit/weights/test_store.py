"""Object stores through fsspec, here its own store in memory: listed, gone on with, and told apart when they change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights.origin import part_of
from orchestrator.weights.source import StoreSource
from orchestrator.weights.store import StoreOrigin

BODY = bytes(range(256)) * 100


@pytest.fixture
def store() -> Iterator[StoreOrigin]:
    disk = fsspec.filesystem("memory")
    disk.pipe({"/bucket/m/config.json": b"{}", "/bucket/m/deep/model.safetensors": BODY, "/bucket/n/other": b"x"})
    yield StoreOrigin(StoreSource("memory://bucket/m"))
    disk.rm("/bucket", recursive=True)


def test_everything_below_the_url_is_listed_by_its_own_name(store: StoreOrigin) -> None:
    listing = store.listing()
    assert {name: file.size_bytes for name, file in listing.files.items()} == {
        "config.json": 2, "deep/model.safetensors": len(BODY)
    }  # fmt: skip
    assert store.listing().revision == listing.revision


def test_a_changed_object_is_another_revision(store: StoreOrigin) -> None:
    before = store.listing().revision
    fsspec.filesystem("memory").pipe("/bucket/m/config.json", b"[]")
    assert store.listing().revision != before


def test_a_transfer_goes_on_where_it_broke_off(store: StoreOrigin, tmp_path: Path) -> None:
    listing = store.listing()
    file = listing.files["deep/model.safetensors"]
    part = part_of(tmp_path / file.name, listing.revision)
    part.parent.mkdir()
    part.write_bytes(BODY[:10_000])
    assert store.kept_bytes(listing, file, tmp_path) == 10_000
    moved: list[int] = []
    store.fetch(listing, file, tmp_path, moved.append)
    assert (tmp_path / file.name).read_bytes() == BODY
    assert sum(moved) == len(BODY) - 10_000
    assert not part.exists()


def test_a_part_that_is_too_long_is_begun_anew(store: StoreOrigin, tmp_path: Path) -> None:
    listing = store.listing()
    file = listing.files["config.json"]
    part_of(tmp_path / file.name, listing.revision).write_bytes(BODY)
    store.fetch(listing, file, tmp_path, lambda _n: None)
    assert (tmp_path / file.name).read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("memory://bucket/absent", "nothing below|no such file"),
        ("foo://bucket/m", "no URL that fsspec reads"),
    ],
)
def test_what_cannot_be_read_is_one_line(store: StoreOrigin, url: str, why: str) -> None:
    with pytest.raises(CheckpointUnavailable, match=why):
        StoreOrigin(StoreSource(url)).listing()
