"""`pull` on every node at once: the Ray job behind `orchestrator pull --nodes`.

One task a node fetches into that node's own cache, with that node's own token (HF_TOKEN or HF_TOKEN_PATH): no secret
passes through Ray. Every second or so a line tells how far all of them are.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.deploy.pull_nodes import MARK
from orchestrator.errors import OrchestratorError
from orchestrator.weights.hub import HubOrigin
from orchestrator.weights.meter import Meter, Reading
from orchestrator.weights.pull import Outcome, check, pull
from orchestrator.weights.source import HubSource, parse_source
from orchestrator.weights.wanted import Wanted

TELL_EVERY_S = 1.0
WAITING = Reading("waiting for Ray", 0, 0, 0.0, None)
Row = dict[str, Any]


def main() -> int:
    wanted, check_only = _arguments()
    ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
    try:
        wanted = _pinned(wanted) if not check_only else wanted
    except OrchestratorError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    rows = _pull_on(_nodes(), wanted, check_only)
    return int(any(row["error"] for row in rows))


def _arguments() -> tuple[Wanted, bool]:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--source", required=True)
    parser.add_argument("--size-bytes", type=int)
    parser.add_argument("--remote-code", action="store_true")
    parser.add_argument("--check-only", action="store_true")
    given = parser.parse_args()
    wanted = Wanted(given.model, parse_source(given.source), given.remote_code, given.size_bytes)
    return wanted, given.check_only


def _pinned(wanted: Wanted) -> Wanted:
    """A branch may move while nodes ask for it one after the other: the head asks, once, for all."""
    source = wanted.source
    if not isinstance(source, HubSource) or source.commit is not None:
        return wanted
    return replace(wanted, source=HubSource(source.hf_id, HubOrigin(source).listing().revision))


def _nodes() -> dict[str, str]:
    """Address by id of the live nodes with GPUs, or of all live ones where none has any."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    with_gpus = [node for node in alive if node["Resources"].get("GPU")]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in with_gpus or alive}


def _pull_on(nodes: dict[str, str], wanted: Wanted, check_only: bool) -> list[Row]:
    # A machine may carry several Ray nodes; then the id tells them apart.
    twice = len(set(nodes.values())) < len(nodes)
    rows = {node_id: _row(f"{ip} ({node_id[:6]})" if twice else ip, WAITING) for node_id, ip in nodes.items()}
    tasks = {node_id: _start(node_id, wanted, check_only) for node_id in nodes}
    while tasks:
        ready, _ = ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=TELL_EVERY_S)
        for node_id in [node_id for node_id, task in tasks.items() if task in ready]:
            if not _take(rows[node_id], tasks[node_id]):
                del tasks[node_id]
        _tell(rows, finished=False)
    _tell(rows, finished=True)
    return list(rows.values())


def _start(node_id: str, wanted: Wanted, check_only: bool) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
    options = {"num_cpus": 0, "max_retries": 0, "num_returns": "streaming", "scheduling_strategy": strategy}
    return ray.remote(pull_here).options(**options).remote(wanted, check_only)


def _take(row: Row, task: Any) -> bool:
    """Take a task's next word into its row; whether more will come."""
    try:
        row.update(ray.get(next(task)))
    except StopIteration:
        return False
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines()
        row["error"] = f"the node or its task ended: {lines[-1] if lines else type(error).__name__}"
        return False
    return True


def _row(node: str, reading: Reading) -> Row:
    return {"node": node, "reading": asdict(reading), "outcome": None, "error": ""}


def _tell(rows: dict[str, Row], finished: bool) -> None:
    print(MARK + json.dumps({"nodes": list(rows.values()), "finished": finished}), flush=True)


def pull_here(wanted: Wanted, check_only: bool) -> Iterator[Row]:
    """Runs on a node: a word each second, and a last one with the outcome or the error."""
    meter, work = Meter(), _Work(wanted, check_only)
    thread = threading.Thread(target=work.run, args=(meter,), daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(TELL_EVERY_S)
        yield {"reading": asdict(meter.read())}
    if work.bug is not None:
        raise work.bug
    yield {"outcome": _document(work.outcome), "error": work.error}


class _Work:
    """One pull, run in a thread so that how far it is can be told meanwhile."""

    def __init__(self, wanted: Wanted, check_only: bool) -> None:
        self._wanted, self._check_only = wanted, check_only
        self.outcome: Outcome | None = None
        self.error = ""
        self.bug: BaseException | None = None

    def run(self, meter: Meter) -> None:
        try:
            wanted, only = self._wanted, self._check_only
            self.outcome = check(wanted, None, meter) if only else pull(wanted, None, meter, print)
        except OrchestratorError as error:
            self.error = str(error)
        except BaseException as bug:  # noqa: BLE001 - raised again in the task itself
            self.bug = bug


def _document(outcome: Outcome | None) -> Row | None:
    return None if outcome is None else {**asdict(outcome), "folder": str(outcome.folder)}


if __name__ == "__main__":
    sys.exit(main())
