"""Which of the layouts that fit is best: a short list of criteria for each objective, in order.

Each criterion is a figure (less is better) and a way to say it. Two layouts are compared by the first
criterion in which they differ, and that criterion is the reason the plan gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.memory.layout import Layout
from orchestrator.plan import Objective
from orchestrator.planner.candidate import Candidate
from orchestrator.planner.fitting import Fit
from orchestrator.planner.links import NETWORK, Link
from orchestrator.planner.request import PlanRequest
from orchestrator.planner.traffic import Traffic, traffic
from orchestrator.units import format_bytes

# Whole experts suit groups of this size: one node, its fast links, and experts that fit one GPU.
WHOLE_EXPERT_RANKS = range(2, 9)
# Tokens of a pass that layouts are compared by, where the request does not say how many: one for each of
# the sequences that vLLM runs at once on most GPUs.
BATCH_TOKENS = 256
_LABEL_ORDER = {"production": 0, "between": 1, "smoke test": 2}


@dataclass(frozen=True)
class Contender:
    """A candidate that fits, with the figures it is ranked by."""

    request: PlanRequest
    candidate: Candidate
    fit: Fit

    @property
    def layout(self) -> Layout:
        return self.fit.layout

    @property
    def num_gpus(self) -> int:
        return self.layout.world_size * self.request.replicas

    @property
    def splits_islands(self) -> bool:
        """Whether some tensor group has to leave its NVLink island."""
        needed = self.layout.pipeline * self.layout.data * self.request.replicas
        return not self.candidate.straddles and self.candidate.pool.whole_groups(self.layout.tensor) < needed

    @property
    def link(self) -> Link:
        """What the all-reduces of a tensor group travel over."""
        if self.candidate.straddles:
            return NETWORK
        return self.candidate.pool.pcie if self.splits_islands else self.candidate.pool.link

    @cached_property
    def traffic(self) -> Traffic:
        """One pass over one token for latency, else over a batch; the same number for every contender."""
        asked = self.request.constraints.concurrency or self.request.engine.max_num_seqs or BATCH_TOKENS
        tokens = 1 if self.request.objective == "latency" else asked
        return traffic(self.request.spec, self.layout, self.fit.args, tokens)

    @cached_property
    def floor_us(self) -> float:
        pool = self.candidate.pool
        memory = min(gpu.hbm_bandwidth_bytes_per_s for gpu in pool.gpus)
        # Rounded, so that layouts which move the same bytes are equal and later criteria decide.
        return round(self.traffic.floor_s(memory, self.link.bytes_per_s) * 1e6, 1)

    @property
    def whole_experts_preferred(self) -> bool:
        """High traffic on one stage of 2-8 ranks: whole experts. One token at a time, or stages: cut ones."""
        spec, layout = self.request.spec, self.layout
        return (
            spec.moe is not None
            and self.request.objective != "latency"
            and layout.pipeline == 1
            and layout.tensor * layout.data in WHOLE_EXPERT_RANKS
            and spec.moe.num_experts % (layout.tensor * layout.data) == 0
        )


@dataclass(frozen=True)
class Criterion:
    """`figure` is minimised; `sentence` says what it is for a contender."""

    name: str
    figure: Callable[[Contender], float]
    sentence: Callable[[Contender], str]


def _straddle_sentence(c: Contender) -> str:
    if c.candidate.straddles:
        return f"its tensor groups of {c.layout.tensor} straddle nodes"
    return "its tensor groups stay inside nodes"


def _expert_sentence(c: Contender) -> str:
    if c.layout.expert:
        experts = c.request.spec.moe.num_experts if c.request.spec.moe else 0
        return f"holds {experts // c.layout.expert_parallel_size} whole experts a rank"
    return f"cuts every expert over {c.layout.tensor} ranks"


def _floor_sentence(c: Contender) -> str:
    t = c.traffic
    tokens = f"{t.tokens} tokens" if t.tokens > 1 else "one token"
    sent = f", {format_bytes(t.sent_bytes)} sent over {c.link.name}" if t.sent_bytes else ""
    return (
        f"a pass over {tokens} takes at least {c.floor_us:,.0f} µs of each GPU "
        f"({format_bytes(t.read_bytes)} read{sent})"
    )


STRADDLE = Criterion("tensor groups inside nodes", lambda c: c.candidate.straddles, _straddle_sentence)
MIXED = Criterion(
    "one kind of GPU",
    lambda c: c.candidate.pool.is_mixed,
    lambda c: f"uses {c.candidate.pool.describe()}",
)
HEADROOM = Criterion(
    "headroom",
    lambda c: _LABEL_ORDER[c.fit.label],
    lambda c: f"its KV pool is {c.fit.headroom:.0%} of all else ({c.fit.label})",
)
SERVES = Criterion(
    "headroom",
    lambda c: c.fit.label == "smoke test",
    lambda c: f"its KV pool is {c.fit.headroom:.0%} of all else ({c.fit.label})",
)
ISLANDS = Criterion(
    "tensor groups inside NVLink islands",
    lambda c: c.splits_islands,
    lambda c: "a tensor group leaves its NVLink island" if c.splits_islands else "groups stay in islands",
)
STAGES = Criterion(
    "fewest pipeline stages",
    lambda c: c.layout.pipeline,
    lambda c: f"{c.layout.pipeline} pipeline stage{'s' if c.layout.pipeline > 1 else ''}",
)
FLOOR = Criterion("least bytes moved a pass", lambda c: c.floor_us, _floor_sentence)
EXPERTS = Criterion(
    "experts placed as the objective asks",
    lambda c: c.layout.expert != c.whole_experts_preferred,
    _expert_sentence,
)
GPUS = Criterion("fewest GPUs", lambda c: c.num_gpus, lambda c: f"uses {c.num_gpus} GPUs")
MEMORY = Criterion(
    "least GPU memory",
    lambda c: c.num_gpus * c.candidate.pool.weakest_gpu.memory_bytes,
    lambda c: f"takes {format_bytes(c.num_gpus * c.candidate.pool.weakest_gpu.memory_bytes)} of GPU memory",
)
CAPACITY = Criterion(
    "most KV tokens",
    lambda c: -c.fit.capacity.tokens,
    lambda c: f"holds {c.fit.capacity.tokens:,} KV tokens",
)

CRITERIA: dict[Objective, tuple[Criterion, ...]] = {
    "throughput": (STRADDLE, MIXED, HEADROOM, ISLANDS, STAGES, FLOOR, EXPERTS, GPUS, CAPACITY),
    "latency": (STRADDLE, MIXED, HEADROOM, ISLANDS, STAGES, FLOOR, EXPERTS, GPUS, CAPACITY),
    "cost": (STRADDLE, MIXED, SERVES, GPUS, MEMORY, ISLANDS, STAGES, FLOOR, EXPERTS, CAPACITY),
}


def ranked(contenders: Sequence[Contender]) -> list[Contender]:
    """Best first; equal figures fall back on names, so that the order never depends on the input's."""
    return sorted(contenders, key=full_key)


def full_key(contender: Contender) -> tuple[object, ...]:
    """What contenders are sorted by."""
    return score_key(contender), _identity(contender)


def score_key(contender: Contender) -> tuple[float, ...]:
    return tuple(float(rule.figure(contender)) for rule in CRITERIA[contender.request.objective])


def cannot_win(candidate: Candidate, best: Contender) -> bool:
    """Whether the candidate loses to `best` before its memory is known: at best it would be for production."""
    num_gpus = candidate.layout.world_size * best.request.replicas
    # The figures of `CRITERIA` up to the first that is known: GPUs for cost, else stages.
    known = (num_gpus,) if best.request.objective == "cost" else (0, candidate.layout.pipeline)
    figures = (candidate.straddles, candidate.pool.is_mixed, 0, *known)
    return figures > score_key(best)[: len(figures)]


def deciding(winner: Contender, loser: Contender) -> Criterion | None:
    """The first criterion in which the two differ."""
    rules = CRITERIA[winner.request.objective]
    return next((rule for rule in rules if rule.figure(winner) != rule.figure(loser)), None)


def _identity(c: Contender) -> tuple[object, ...]:
    layout = c.layout
    return (c.candidate.pool.kinds, layout.tensor, layout.pipeline, layout.data, layout.expert)
