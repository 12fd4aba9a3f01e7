"""Taking an application away: it, and nothing else, and only then is it done."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.deploy.ray_api import RayApi
from orchestrator.deploy.remove import REMOVAL_TIMEOUT_S, remove
from orchestrator.errors import ApplyFailed
from tests.unit.deploy.test_apply import APP, OTHER, World, running


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    return World(apps={"m": running(APP), "other": running(OTHER)})


def take_away(world: World, name: str) -> bool:
    return remove(cast(RayApi, world), name, world.forget, world.clock())


def test_it_is_done_when_the_last_process_is_gone(world: World) -> None:
    assert take_away(world, "m")
    assert list(world.apps) == ["other"]
    assert world.time_s >= 1002
    assert world.forgotten == ["m", "m"]


def test_what_is_not_there_is_not_taken_away(world: World) -> None:
    assert not take_away(world, "absent")
    assert world.puts == []


def test_what_never_ends_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_args: Any) -> None:
        return None

    monkeypatch.setattr(world, "remove", nothing)
    with pytest.raises(ApplyFailed, match=f"m is still stopping after {REMOVAL_TIMEOUT_S:.0f} s"):
        take_away(world, "m")
