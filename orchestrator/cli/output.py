"""How commands speak: progress on stderr, results on stdout, JSON when asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console
from rich.status import Status

from orchestrator.deploy.clock import Clock
from orchestrator.units import format_seconds

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

JsonOption = typer.Option(False, "--json", help="Print JSON on stdout and nothing else there.")
AddressOption = typer.Option(
    None,
    "--address",
    help="Ray's dashboard (host, host:port or URL), or `local` for this machine's own. "
    "Default: RAY_DASHBOARD_URL, the cluster used last, the Ray started here, or port 8265.",
    show_default=False,
)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2))


class ProgressView:
    """Phases as they happen: the one that runs with its seconds counting, the ones that are over in a line each.

    Without a terminal every phase is a plain line, so that a log file tells the same.
    """

    def __init__(self, clock: Clock = Clock()) -> None:
        self._clock = clock
        self._status: Status | None = None
        self._phase = ""
        self._begun_s = 0.0
        self._said = ""

    def phase(self, name: str) -> None:
        """A phase begins; the one before it is over."""
        self._close_phase()
        self._phase, self._begun_s = name, self._clock.monotonic_s()
        if err.is_terminal:
            self._status = err.status(f"{name} …")
            self._status.start()
        else:
            err.print(f"  {name} …", highlight=False)

    def say(self, line: str) -> None:
        """Something worth a line; the same line again is news only to the counting status."""
        if self._status is not None:
            self._status.update(f"{self._phase}: {line}")
        kind = line.partition("(")[0]
        if self._status is None and kind != self._said:
            err.print(f"    {line}", highlight=False, markup=False)
        self._said = kind

    def close(self) -> None:
        """Nothing runs any more."""
        self._close_phase()
        self._phase = ""

    def _close_phase(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
            err.print(
                f"  {self._phase:<15} {format_seconds(self._clock.monotonic_s() - self._begun_s):>8}", highlight=False
            )


def print_phases(seconds: Mapping[str, float]) -> None:
    """The phases with the seconds of each and their sum, as a table on stderr."""
    for phase, spent in seconds.items():
        err.print(f"  {phase:<16}{format_seconds(spent):>10}", highlight=False)
    err.print(f"  {'together':<16}{format_seconds(sum(seconds.values())):>10}", highlight=False)
