"""The command-line runner as a fixture."""

from __future__ import annotations

import pytest

from tests.unit.cli.runner import Runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(monkeypatch, capsys)
