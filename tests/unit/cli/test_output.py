"""Progress as a log file sees it: every phase and every new line once, nothing of it on stdout."""

from __future__ import annotations

import pytest

from orchestrator.cli.output import ProgressView
from orchestrator.deploy.clock import Clock


def test_without_a_terminal_each_phase_is_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView(Clock(monotonic_s=lambda: 0.0))
    view.phase("cluster")
    for seconds in range(3):
        view.say(f"starting Ray ({seconds} s)")
    view.say("[bold] is a word, not a style")
    view.phase("weights")
    view.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.strip() for line in captured.err.splitlines()] == [
        "cluster …", "starting Ray (0 s)", "[bold] is a word, not a style", "weights …",
    ]  # fmt: skip
