"""A folder is whole or absent, whatever ends the builder."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from orchestrator.demo.staging import exclusive, plain_disk_errors, require_space, staged
from orchestrator.errors import CheckpointUnavailable


class _Waiting(Exception):
    pass


def _raise_waiting() -> None:
    raise _Waiting


def _build_half(target: Path, end: type[BaseException]) -> None:
    with staged(target) as fresh:
        (fresh / "weights").write_text("half")
        raise end


def _fail(folder: Path, number: int) -> None:
    with plain_disk_errors(folder, purpose="building x"):
        raise OSError(number, "as the system says it")


def test_a_folder_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with staged(target) as fresh:
        (fresh / "weights").write_text("new")
        assert not target.exists()
    assert (target / "weights").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError, ValueError])
def test_a_builder_that_fails_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, end: type[BaseException]) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(end):
        _build_half(target, end)
    assert (target / "weights").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_builder_left_is_cleared_away(tmp_path: Path) -> None:
    target, other = tmp_path / "model", tmp_path / ".model-8x2.building-1"
    (tmp_path / ".model.building-1").mkdir()
    other.mkdir()
    with staged(target):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([target, other])


def test_a_new_folder_replaces_a_damaged_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").touch()
    with staged(target) as fresh:
        (fresh / "weights").touch()
    assert [path.name for path in target.iterdir()] == ["weights"]


def test_a_second_builder_is_told_that_it_waits(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with (
        exclusive(lock, waiting=_raise_waiting),
        pytest.raises(_Waiting),
        exclusive(lock, waiting=_raise_waiting),
    ):
        pass
    with exclusive(lock, waiting=_raise_waiting):
        pass


def test_too_small_a_disk_is_told_with_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match=r"building x needs 1024 TiB of disk in .* are free; free some"):
        require_space(tmp_path, 2**50, purpose="building x")


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "make it writable"),
        (errno.ENOTDIR, "choose another"),
    ],
)
def test_what_the_disk_refuses_is_one_line_with_the_way_out(tmp_path: Path, number: int, way_out: str) -> None:
    with pytest.raises(CheckpointUnavailable, match=f"building x failed in .*; {way_out}") as failure:
        _fail(tmp_path, number)
    assert "\n" not in str(failure.value)
