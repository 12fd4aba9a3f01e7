"""The plan against what the ranks say of themselves. Pure: reports in, sentences out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestrator.plan import Plan, PlannedRank
from orchestrator.units import format_bytes

# The planner's bytes are exact for unquantised weights; schemes that quantise while loading end near them.
WEIGHTS_TOLERANCE = 0.02


class ReportedRank(BaseModel):
    """What a worker found out about itself, from inside (`WorkerExtension.report_rank`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int
    tensor_rank: int
    pipeline_stage: int
    node: str
    gpu_index: int
    layers: tuple[int, ...]
    experts: tuple[int, ...] | None
    weights_bytes: int


@dataclass(frozen=True)
class RankPlan:
    """What a replica was planned to be: its index, and plans as documents (`contents` None: the same as `plan`)."""

    replica: int
    plan: dict[str, Any]
    contents: dict[str, Any] | None

    @property
    def nodes(self) -> dict[int, str]:
        """The node of each rank of the replica."""
        return {rank["rank"]: rank["node"] for rank in self.plan["ranks"] if rank["replica"] == self.replica}

    def compare(self, reported: Sequence[ReportedRank]) -> Comparison:
        """Hold the replica's ranks against it."""
        # Through JSON, as a file would come: tuples are lists by now.
        plan = Plan.from_json(json.dumps(self.plan))
        contents = plan if self.contents is None else Plan.from_json(json.dumps(self.contents))
        return compare(plan, contents, self.replica, reported)


@dataclass(frozen=True)
class Comparison:
    """`wrong` fails a deployment, `odd` is worth a warning; each sentence names its rank."""

    wrong: tuple[str, ...]
    odd: tuple[str, ...]


def read_reports(reports: Sequence[dict[str, Any]]) -> tuple[ReportedRank, ...]:
    """The ranks of one replica, in order."""
    return tuple(sorted((ReportedRank.model_validate(each) for each in reports), key=lambda each: each.rank))


def compare(plan: Plan, contents: Plan, replica: int, reported: Sequence[ReportedRank]) -> Comparison:
    """Hold a replica's ranks against the plan.

    `plan` says where each rank is to run, `contents` what it is to hold: the same plan, or in a rehearsal the one
    of the model that stands in. Which of a node's GPUs a rank gets is Ray's to say, and not always what was planned: a
    group that starts anew does so while the GPUs of the old one are still held. They are all of one kind, so any will
    do, but no two ranks may sit on one.
    """
    places = {rank.rank: rank for rank in plan.ranks if rank.replica == replica}
    holdings = {rank.rank: rank for rank in contents.ranks if rank.replica == replica}
    if {rank.rank for rank in reported} != set(places):
        return Comparison((f"{len(reported)} ranks run, {len(places)} were planned",), ())
    wrong: list[str] = []
    odd: list[str] = []
    seats: dict[tuple[str, int], int] = {}
    for rank in reported:
        where = f"rank {rank.rank} on {rank.node}, GPU {rank.gpu_index}"
        first = seats.setdefault((rank.node, rank.gpu_index), rank.rank)
        if first != rank.rank:
            wrong.append(f"{where}: rank {first} is there too")
        wrong += [f"{where}: {text}" for text in _wrong(places[rank.rank], holdings[rank.rank], rank)]
        odd += [f"{where}: {text}" for text in _odd(holdings[rank.rank], rank)]
    return Comparison(tuple(wrong), tuple(odd))


def _wrong(place: PlannedRank, holding: PlannedRank, found: ReportedRank) -> Iterator[str]:
    if place.node != found.node:
        yield f"planned on {place.node}, GPU {place.gpu_index}"
    if (place.tensor_rank, place.pipeline_stage) != (found.tensor_rank, found.pipeline_stage):
        yield (
            f"is tensor rank {found.tensor_rank} of stage {found.pipeline_stage}, planned as tensor rank "
            f"{place.tensor_rank} of stage {place.pipeline_stage}"
        )
    if tuple(range(*holding.layers)) != found.layers:
        yield f"holds {_layers(found.layers)}, planned are {_layers(tuple(range(*holding.layers)))}"
    if holding.experts != found.experts:
        yield f"holds {_experts(found.experts)}, planned are {_experts(holding.experts)}"
    if found.weights_bytes > holding.memory.capacity_bytes:
        yield (
            f"holds {format_bytes(found.weights_bytes)} of weights, more than the "
            f"{format_bytes(holding.memory.capacity_bytes)} of its GPU"
        )


def _odd(holding: PlannedRank, found: ReportedRank) -> Iterator[str]:
    planned, measured = holding.memory.weights_bytes, found.weights_bytes
    if abs(measured - planned) > WEIGHTS_TOLERANCE * planned:
        yield (
            f"holds {measured:,} bytes of weights where {planned:,} were planned "
            f"({(measured - planned) / planned:+.1%}, tolerated {WEIGHTS_TOLERANCE:.0%})"
        )


def _layers(numbers: tuple[int, ...]) -> str:
    if not numbers:
        return "no layer"
    whole = numbers == tuple(range(numbers[0], numbers[-1] + 1))
    return f"layers {numbers[0]} to {numbers[-1]}" if whole else f"layers {', '.join(map(str, numbers))}"


def _experts(ids: tuple[int, ...] | None) -> str:
    if ids is None:
        return "a part of every expert"
    return f"{len(ids)} whole experts ({ids[0]} to {ids[-1]})" if ids else "no expert"
