"""`pull`: a model's weights fetched and checked ahead of `deploy`, here or on every node of a cluster."""

from __future__ import annotations

import threading
from dataclasses import asdict
from pathlib import Path

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from orchestrator.cli.catalog import CatalogOption, the_catalog
from orchestrator.cli.output import AddressOption, JsonOption, err, out, print_json
from orchestrator.demo import DEMO_MODELS
from orchestrator.deploy import pull_nodes
from orchestrator.deploy.session import connected
from orchestrator.errors import CheckpointUnavailable, ConfigError
from orchestrator.units import format_bytes
from orchestrator.weights import pins
from orchestrator.weights.meter import Meter, Reading
from orchestrator.weights.pull import Outcome, check
from orchestrator.weights.pull import pull as pull_weights
from orchestrator.weights.source import HubSource
from orchestrator.weights.wanted import Wanted, want

HELP = """Fetch the weights of MODEL and check every byte, before `deploy` needs them.

They come to this machine's cache (below HF_HOME), to the folder of --to, or
with --nodes to the cache of every node of a Ray cluster. Where there is no
network, carry a folder made with --to over, and deploy it or pull --from it.

    orchestrator pull kimi-k2 --to /media/disk/kimi-k2
    orchestrator pull kimi-k2 --from /media/disk/kimi-k2
"""
# Without a terminal, a line so often.
LINE_EVERY_S = 10.0
DRAW_EVERY_S = 0.5
INTERRUPTED = "interrupted; what was fetched stays, and the next pull goes on from there"


def pull(
    model: str = typer.Argument(..., help="A name of the catalogue, a Hugging Face id, or any name with --from."),
    revision: str = typer.Option(None, help="Commit, branch or tag on the hub.", show_default=False),
    origin: str = typer.Option(
        None, "--from", help="A folder, hf://org/name@revision, s3://, gs://, …", show_default=False
    ),
    to: Path = typer.Option(None, help="Into this folder instead of the cache.", show_default=False),
    check_only: bool = typer.Option(False, "--check-only", help="Fetch nothing; read and check what is here."),
    nodes: bool = typer.Option(False, "--nodes", help="On every node of the cluster that has GPUs (or on all)."),
    catalog: Path = CatalogOption,
    address: str = AddressOption,
    as_json: bool = JsonOption,
) -> None:
    if model in DEMO_MODELS:
        raise ConfigError(f"{model} is built on the spot, not fetched: orchestrator build {model}")
    wanted = want(model, revision, origin, the_catalog(catalog))
    if nodes:
        if to is not None:
            raise ConfigError("--to is a folder of this machine; with --nodes every node fills its own cache (HF_HOME)")
        _pull_on_nodes(wanted, address, check_only, as_json)
        return
    if address is not None:
        raise ConfigError("--address names a cluster, which only --nodes pulls on")
    outcome = _pull_here(wanted, to.expanduser().absolute() if to else None, check_only)
    _remember(wanted, [outcome.revision])
    if as_json:
        print_json({**asdict(outcome), "folder": str(outcome.folder)})
    else:
        _print(outcome)


def _pull_here(wanted: Wanted, to: Path | None, check_only: bool) -> Outcome:
    meter, view = Meter(), _Bars()
    over = threading.Event()
    # The bytes are moved here, where Ctrl-C arrives; what is drawn of it is drawn beside.
    drawing = threading.Thread(target=_draw, args=(meter, view, over), daemon=True)
    drawing.start()
    try:
        return check(wanted, to, meter) if check_only else pull_weights(wanted, to, meter, view.say)
    except KeyboardInterrupt:
        raise CheckpointUnavailable(INTERRUPTED) from None
    finally:
        over.set()
        drawing.join()
        view.close()


def _draw(meter: Meter, view: _Bars, over: threading.Event) -> None:
    while not over.wait(DRAW_EVERY_S):
        view.show("", meter.read())


def _pull_on_nodes(wanted: Wanted, address: str | None, check_only: bool, as_json: bool) -> None:
    view = _Bars()
    try:
        states = pull_nodes.run(connected(address), wanted, check_only, lambda s: view.show(s.node, s.reading))
    except KeyboardInterrupt:
        raise CheckpointUnavailable(INTERRUPTED) from None
    finally:
        view.close()
    _remember(wanted, [state.outcome["revision"] for state in states if state.outcome])
    if as_json:
        print_json([state.document() for state in states])
    else:
        for state in states:
            out.print(f"{state.node}: {state.line()}", highlight=False, markup=False)
        for note in dict.fromkeys(note for state in states for note in state.notes):
            err.print(f"  {note}", highlight=False, markup=False)
    failed = [state for state in states if state.error]
    if failed:
        raise CheckpointUnavailable(f"{len(failed)} of {len(states)} nodes failed; {failed[0].node}: {failed[0].error}")


def _remember(wanted: Wanted, revisions: list[str]) -> None:
    """What is deployed from now on is what was pulled, wherever the engine runs."""
    if isinstance(wanted.source, HubSource) and wanted.source.hf_id == wanted.model and len(set(revisions)) == 1:
        pins.remember(wanted.model, revisions[0])


def _print(outcome: Outcome) -> None:
    for note in outcome.notes:
        err.print(f"  {note}", highlight=False, markup=False)
    moved = f", {format_bytes(outcome.fetched_bytes)} of them fetched now" if outcome.fetched_bytes else ""
    out.print(f"{outcome.model}: {outcome.state}, {format_bytes(outcome.size_bytes)}{moved}", highlight=False)
    out.print(f"revision: {outcome.revision} ({outcome.source})", highlight=False, markup=False)
    out.print(f"folder:   {outcome.folder}", highlight=False, markup=False)


class _Bars:
    """A bar for each place where bytes arrive; without a terminal a line for each, every few seconds."""

    def __init__(self) -> None:
        self._progress = Progress(TextColumn("  {task.description}"), BarColumn(), console=err, transient=True)
        self._tasks: dict[str, TaskID] = {}
        self._last: dict[str, tuple[str, float]] = {}
        if err.is_terminal:
            self._progress.start()

    def show(self, place: str, reading: Reading) -> None:
        text = f"{place}: {reading}" if place else str(reading)
        if not err.is_terminal:
            self._line(place, text, reading.phase)
            return
        if place not in self._tasks:
            self._tasks[place] = self._progress.add_task(text, total=None)
        total = reading.total_bytes or None
        self._progress.update(self._tasks[place], description=text, completed=reading.done_bytes, total=total)

    def say(self, line: str) -> None:
        err.print(f"  {line}", highlight=False, markup=False)

    def close(self) -> None:
        if err.is_terminal:
            self._progress.stop()

    def _line(self, place: str, text: str, phase: str) -> None:
        said, at_s = self._last.get(place, ("", 0.0))
        now_s = self._progress.get_time()
        if phase and (phase != said or now_s - at_s >= LINE_EVERY_S):
            self._last[place] = (phase, now_s)
            self.say(text)
