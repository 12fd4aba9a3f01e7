"""Rate and time left follow the last seconds, from a clock that is handed in."""

from __future__ import annotations

from orchestrator.units import MIB
from orchestrator.weights.meter import Meter


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_rate_is_that_of_the_last_seconds_and_tells_what_is_left() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.begin("fetching", 100 * MIB, done_bytes=40 * MIB)
    for _ in range(10):
        clock.now_s += 1
        meter.advance(2 * MIB)
        reading = meter.read()
    assert (reading.done_bytes, reading.bytes_per_s, reading.eta_s) == (60 * MIB, 2 * MIB, 20.0)
    assert str(reading) == "fetching 60.0 MiB of 100 MiB, 2.0 MiB/s, 20.0 s left"


def test_a_line_that_went_dead_promises_nothing() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.begin("fetching", 100 * MIB)
    meter.advance(50 * MIB)
    for _ in range(60):
        clock.now_s += 1
        reading = meter.read()
    assert (reading.bytes_per_s, reading.eta_s) == (0.0, None)


def test_a_phase_without_bytes_is_its_name() -> None:
    assert str(Meter(Clock()).read()) == ""
    meter = Meter(Clock())
    meter.begin("waiting for process 7 on node-1", 0)
    assert str(meter.read()) == "waiting for process 7 on node-1"
