"""`cluster-check` speaks before `ray up` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.cluster_configs import FOLDER
from tests.unit.cli.runner import Runner


def test_a_missing_token_is_one_error_and_exit_code_1(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(FOLDER.parent)
    code, _, err = run("cluster-check", FOLDER / "kimi-16xh100-aws.yaml")
    assert code == 1
    assert "is not ready for ray up:\n  no Ray token in" in err
    code, out, _ = run("cluster-check", FOLDER / "kimi-16xh100-aws.yaml", "--json")
    assert code == 1
    assert "no Ray token" in json.loads(out)["missing"][0]


def test_a_ready_file_is_said_to_be_ready(run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(FOLDER.parent)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789")
    (tmp_path / ".ray/auth_token").chmod(0o600)
    code, out, _ = run("cluster-check", FOLDER / "kimi-16xh100-aws.yaml")
    assert (code, out) == (0, f"{FOLDER / 'kimi-16xh100-aws.yaml'}: ready for ray up\n")
