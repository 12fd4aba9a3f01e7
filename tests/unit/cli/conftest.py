"""The command-line runner as a fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.runner import Runner


@pytest.fixture(autouse=True)
def _state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the state folder, or the catalogue, of whoever runs it."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(monkeypatch, capsys)
