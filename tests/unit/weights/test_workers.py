"""Files are worked on side by side, in order; the first failure ends the others soon, and is the one that is told."""

from __future__ import annotations

import threading

import pytest

from orchestrator.errors import CheckpointUnavailable
from orchestrator.weights.meter import Meter
from orchestrator.weights.origin import Advance
from orchestrator.weights.workers import side_by_side


def test_results_come_in_order_and_bytes_are_counted() -> None:
    meter = Meter(lambda: 0.0)

    def work(item: int, advance: Advance) -> int:
        advance(item)
        return item * 10

    assert side_by_side(work, range(20), meter) == [item * 10 for item in range(20)]
    assert meter.read().done_bytes == sum(range(20))


def test_the_first_failure_ends_what_would_go_on_for_ever() -> None:
    begun = threading.Event()

    def work(item: int, advance: Advance) -> None:
        if item == 0:
            begun.wait(10)
            raise CheckpointUnavailable("the disk is full")
        begun.set()
        while True:
            advance(1)

    with pytest.raises(CheckpointUnavailable, match="the disk is full"):
        side_by_side(work, range(4), Meter(lambda: 0.0))
