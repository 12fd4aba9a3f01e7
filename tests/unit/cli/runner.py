"""Runs the program as a user would."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import main


class Runner:
    """Gives the exit code, the output and the errors of one command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("NO_COLOR", "1")

    def __call__(self, *words: str | Path) -> tuple[int, str, str]:
        self._monkeypatch.setattr("sys.argv", ["orchestrator", *(str(word) for word in words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = self._capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err
