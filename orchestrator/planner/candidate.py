"""A layout on a pool of GPUs, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.memory.layout import Layout
from orchestrator.planner.fitting import Fit
from orchestrator.planner.legality import Refusal
from orchestrator.planner.pools import Pool


@dataclass(frozen=True)
class Candidate:
    """A layout on a pool. `straddles`: its tensor groups are spread over several nodes."""

    layout: Layout
    pool: Pool
    straddles: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a candidate came to: a fit, or the reason why it is out."""

    candidate: Candidate
    result: Fit | Refusal
