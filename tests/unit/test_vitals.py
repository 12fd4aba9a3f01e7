"""Who is dead, silent or stuck is found in time and named; a busy, waiting or idle engine is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from deployments.node_check import SHARED_MEMORY_BYTES, check_node
from deployments.vitals import CORE, Beat, Limits, Vitals
from deployments.watch import limits_from


def beat(rank: int, at_s: float = 0.0, **changes: Any) -> Beat:
    """A process that computes all the time, up to `at_s`."""
    facts = {
        "rank": rank,
        "node": f"node-{max(rank, 0) // 2}",
        "pid": 100 + rank,
        "cpu_s": at_s,
        "memory_bytes": 1,
        "read_bytes": 1,
        "doing": "wait (queue.py:1)",
    }
    return Beat.model_validate({**facts, **changes})


def heard(until_s: float, loading: bool, silent: dict[int, float] | None = None, **changes: Any) -> Vitals:
    """Core and four ranks heard each second up to `until_s`, but for those that fell `silent` at some second."""
    vitals = Vitals()
    for second in range(int(until_s) + 1):
        if second == 1 and not loading:
            vitals.serving(1.0)
        for rank in (CORE, 0, 1, 2, 3):
            if second <= (silent or {}).get(rank, until_s):
                vitals.hear(beat(rank, float(second), **changes), float(second))
    return vitals


@pytest.mark.parametrize("loading", [True, False])
def test_an_engine_that_is_heard_is_well(loading: bool) -> None:
    assert heard(100.0, loading).trouble(100.5) is None


def test_a_rank_that_falls_silent_is_found_within_ten_seconds_while_serving_and_named() -> None:
    vitals = heard(50.0, False, silent={3: 40})
    found = next(at_s for at_s in range(40, 60) if vitals.trouble(float(at_s)))
    assert found <= 50
    told = heard(50.0, False, silent={3: 40}).trouble(50.0)
    assert told == (
        "rank 3 on node-1 (process 103) has given no sign of life for 10 s (stopped, its node lost, or the network "
        "between)"
    )


def test_a_lost_node_is_told_by_its_first_rank_and_the_number_of_the_others() -> None:
    told = heard(50.0, False, silent={2: 40, 3: 40}).trouble(50.0)
    assert told is not None
    assert told.startswith("rank 2 on node-1")
    assert told.endswith("; silent too: 1 more")


def test_while_loading_silence_is_borne_longer_but_less_than_thirty_seconds() -> None:
    vitals = heard(60.0, True, silent={1: 30})
    assert vitals.trouble(48.0) is None
    assert "rank 1 on node-0" in str(vitals.trouble(55.0))


def test_a_rank_that_dies_is_told_at_once_while_serving_and_before_the_core_that_it_takes_along() -> None:
    vitals = heard(5.0, False)
    vitals.closed(CORE, 5.1)
    vitals.closed(2, 5.1)
    assert vitals.trouble(5.2) == "rank 2 on node-1 (process 102) died"


def test_while_loading_the_engine_may_tell_first_why_it_ended() -> None:
    vitals = heard(5.0, True)
    vitals.closed(CORE, 5.0)
    assert vitals.trouble(9.0) is None
    assert vitals.trouble(10.0) == "the engine's core on node-0 (process 99) died"


def test_a_step_that_does_not_end_is_told_with_what_each_rank_is_at_the_odd_one_first() -> None:
    vitals = heard(20.0, False, cpu_s=1.0)
    vitals.hear(beat(CORE, cpu_s=1.0, step_s=7.9), 20.0)
    assert vitals.trouble(20.0) is None
    vitals.hear(beat(CORE, cpu_s=1.0, step_s=8.9), 21.0)
    vitals.hear(beat(2, cpu_s=1.0, doing="read (ssl.py:3)"), 21.0)
    assert vitals.trouble(21.0) == (
        "a step of the engine has not ended for 9 s: rank 2 on node-1 (process 102) in read (ssl.py:3); "
        "ranks 0, 1, 3 in wait (queue.py:1)"
    )


def test_a_step_in_which_a_rank_computes_gets_long_but_not_for_ever() -> None:
    """A kernel that is compiled in the midst of serving, a large prefill on CPUs: nothing to end an engine for."""
    vitals = heard(30.0, False)
    vitals.hear(beat(CORE, 30.0, step_s=25.0), 30.0)
    assert vitals.trouble(30.0) is None
    vitals.hear(beat(CORE, 30.0, step_s=121.0), 30.0)
    assert str(vitals.trouble(30.0)).startswith("a step of the engine has not ended for 121 s")


def test_a_long_step_while_loading_is_the_warm_up_and_no_trouble() -> None:
    vitals = heard(5.0, True)
    vitals.hear(beat(CORE, 6.0, step_s=100.0), 6.0)
    assert vitals.trouble(6.0) is None


def test_a_load_in_which_nobody_does_anything_is_stuck() -> None:
    vitals = heard(40.0, True, cpu_s=1.0)
    assert str(vitals.trouble(40.0)).startswith("no rank has computed or read anything for 40 s while loading: ranks 0")
    assert heard(20.0, True, cpu_s=1.0).trouble(20.0) is None


def test_ranks_that_were_never_heard_of_are_named_with_their_node_when_a_load_is_stuck() -> None:
    vitals = heard(100.0, True, cpu_s=1.0)
    vitals.expected = {**dict.fromkeys(range(4), "node-0"), 4: "node-2", 5: "node-2"}
    assert "; never heard of: ranks 4, 5 on node-2 (a firewall between the nodes?" in str(vitals.trouble(100.0))
    still_starting = heard(80.0, True, cpu_s=1.0)
    still_starting.expected = vitals.expected
    assert still_starting.trouble(80.0) is None


def test_a_core_whose_ranks_never_begin_is_told_with_where_they_were_to_be() -> None:
    vitals = Vitals(expected={0: "node-0", 1: "node-1"})
    for second in range(0, 200):
        vitals.hear(beat(CORE, float(second)), float(second))
    assert vitals.trouble(170.0) is None
    told = "no rank has begun within 190 s; never heard of: ranks 0, 1 on node-0, node-1 (a firewall"
    assert str(vitals.trouble(190.0)).startswith(told)


@pytest.mark.parametrize(("sign", "much"), [("cpu_s", 1), ("memory_bytes", 2 << 20), ("read_bytes", 1 << 20)])
def test_ranks_may_wait_for_one_that_computes_grows_or_reads(sign: str, much: int) -> None:
    vitals = heard(40.0, True, cpu_s=1.0)
    for second in range(41, 60):
        for rank in (0, 1, 3):
            vitals.hear(beat(rank, cpu_s=1.0), float(second))
        vitals.hear(beat(2, **{"cpu_s": 1.0, sign: second * much}), float(second))
    assert vitals.trouble(59.5) is None


def test_what_telling_costs_is_no_sign_of_activity() -> None:
    vitals = Vitals()
    for second in range(60):
        for rank in (CORE, 0, 1):
            own = {"cpu_s": 0.003 * second, "memory_bytes": 10_000 + 4096 * (second % 3), "read_bytes": 6000 * second}
            vitals.hear(beat(rank, **own), float(second))
    assert str(vitals.trouble(59.0)).startswith("no rank has computed or read anything")


def test_limits_come_from_the_environment_or_are_refused() -> None:
    assert limits_from(None) == Limits()
    assert limits_from('{"stuck_step_s": 60}').stuck_step_s == 60.0
    for wrong in ("60", '{"stuck": 1}', '{"stuck_step_s": "long"}', "{"):
        with pytest.raises(ValueError, match="ORCHESTRATOR_LIMITS is"):
            limits_from(wrong)


def test_a_beat_of_another_shape_is_refused() -> None:
    for changes in ({"rank": -2}, {"node": "x" * 300}, {"more": 1}):
        with pytest.raises(ValidationError):
            Beat.model_validate({**beat(0).model_dump(), **changes})


def test_a_node_with_another_engine_or_without_shared_memory_is_named() -> None:
    check_node("rank 3 on node-1", "0.29.0", "0.29.0", SHARED_MEMORY_BYTES)
    with pytest.raises(RuntimeError, match=r"^rank 3 on node-1 has vLLM 0\.28\.0, and the replica has 0\.29\.0"):
        check_node("rank 3 on node-1", "0.28.0", "0.29.0", SHARED_MEMORY_BYTES)
    with pytest.raises(RuntimeError, match=r"rank 3 on node-1 has 64\.0 MiB of shared memory left .* --shm-size"):
        check_node("rank 3 on node-1", "0.29.0", "0.29.0", 64 * 1024**2)
