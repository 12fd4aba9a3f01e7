"""What engines tell: numbered, bounded, by deployment."""

from __future__ import annotations

from deployments.front.events import MAX_EVENTS, EventLog


def test_each_listener_hears_what_it_has_not_heard() -> None:
    log = EventLog()
    log.add("a", "r1", "weights", {}, 1.0)
    log.add("b", "r2", "weights", {}, 2.0)
    log.add("a", "r1", "ready", {"kv_cache_tokens": 5}, 3.0)
    assert [event.kind for event in log.since("a", 0)] == ["weights", "ready"]
    assert [(event.sequence, event.detail) for event in log.since("a", 1)] == [(3, {"kv_cache_tokens": 5})]
    assert log.since("a", log.last_sequence) == log.since("c", 0) == []


def test_the_log_is_bounded_and_numbers_go_on() -> None:
    log = EventLog()
    for number in range(MAX_EVENTS + 10):
        log.add("a", "r", str(number), {}, 0)
    assert len(log.since("a", 0)) == MAX_EVENTS
    assert log.since("a", 0)[0].sequence == 11
    assert log.last_sequence == MAX_EVENTS + 10
