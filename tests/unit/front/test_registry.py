"""Who serves what, by leases: pure, with the time handed in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deployments.front.registry import LEASE_S, Registry
from deployments.front_link import Announcement


def said(deployment: str = "m", replica: str = "r1", *aliases: str, **changed: Any) -> Announcement:
    facts: dict[str, Any] = {"host": "127.0.0.1", "port": 9000, "auth": True, "max_model_len": 2048, "created": 1}
    return Announcement(deployment, replica, (deployment, *aliases), **{**facts, **changed})


def test_a_heartbeat_changes_routes_only_when_it_says_something_new() -> None:
    registry = Registry()
    assert registry.announce(said(), 0, 0)
    assert not registry.announce(said(), 7, 1)
    assert registry.announce(said(port=9001), 0, 2)
    assert registry.announce(said(replica="r2"), 0, 3)
    assert [replica.replica for replica in registry.deployments["m"].live] == ["r1", "r2"]


def test_a_lease_is_over_only_after_its_time() -> None:
    registry = Registry()
    registry.announce(said(), 0, 100)
    assert not registry.expire(100 + LEASE_S)
    assert registry.expire(100 + LEASE_S + 0.1)
    assert not registry.expire(100 + LEASE_S + 0.2)


def test_a_model_outlives_its_replicas_until_it_is_forgotten() -> None:
    registry = Registry()
    registry.announce(said("m", "r1", "org/M"), 3, 0)
    registry.expire(1000)
    known = registry.find("org/M")
    assert known is not None
    assert (known.live, known.in_flight) == ([], {})
    assert registry.routes() == {"m": "m", "org/M": "m"}
    assert registry.forget("m")
    assert not registry.forget("m")
    assert registry.find("org/M") is None
    assert registry.routes() == {}


def test_a_replica_that_withdrew_may_come_back() -> None:
    registry = Registry()
    registry.announce(said(), 0, 0)
    assert registry.withdraw("r1")
    assert not registry.withdraw("r1")
    assert registry.announce(said(), 0, 1)


def test_the_newest_replica_tells_who_may_call() -> None:
    """In a rolling update old and new replicas announce side by side: an old one must not turn it back."""
    registry = Registry()
    registry.announce(said(auth=False), 0, 0)
    registry.announce(said("m", "r2", "org/M", auth=True), 0, 1)
    registry.announce(said(auth=False), 0, 2)
    known = registry.deployments["m"]
    assert (known.auth, known.names) == (True, ("m", "org/M"))


def test_a_name_wins_over_anothers_alias() -> None:
    registry = Registry()
    registry.announce(said("a", "r1", "b"), 0, 0)
    registry.announce(said("b", "r2"), 0, 0)
    found = registry.find("b")
    assert found is not None
    assert found.name == registry.routes()["b"] == "b"


models = st.sampled_from("abcd")
announcements = st.lists(st.tuples(models, models, models), max_size=8)


@given(announcements)
def test_routes_and_look_up_agree(told: list[tuple[str, str, str]]) -> None:
    """HAProxy goes by the one, the ingress by the other."""
    registry = Registry()
    for number, (deployment, *aliases) in enumerate(told):
        registry.announce(said(deployment, f"r{number}", *aliases), 0, 0)
    routes = registry.routes()
    for name in "abcd":
        known = registry.find(name)
        assert (known.name if known else None) == routes.get(name)
