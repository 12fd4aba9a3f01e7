"""Which cluster a command means: what is named, then what was used last, then what is there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.remote import which
from orchestrator.remote.cluster_file import ClusterFile
from orchestrator.remote.ray_up import BroughtUp
from tests.unit.remote.conftest import SHIPPED

NAMED = SHIPPED / "kimi-16xh200.yaml"
LAST = SHIPPED / "kimi-16xh100.yaml"


def choose(
    cluster: Path | None = None,
    address: str | None = None,
    environ: Mapping[str, str] | None = None,
    last_used: Path | None = None,
    brought_up: Sequence[BroughtUp] = (),
    here_since_s: float | None = None,
    said: list[str] | None = None,
) -> str | None:
    """The name of the cluster elsewhere; None for this machine."""
    said = [] if said is None else said
    file = which.choose(
        cluster, address, environ or {}, last_used, lambda: brought_up, lambda: here_since_s, said.append
    )
    return None if file is None else file.name


def test_what_is_named_comes_before_what_was_used_last(file: ClusterFile) -> None:
    up = [BroughtUp(file, 100.0)]
    assert choose(cluster=NAMED, environ={"RAY_DASHBOARD_URL": "x"}, last_used=LAST, brought_up=up) == "kimi-16xh200"
    assert choose(address="10.0.0.9", last_used=LAST, brought_up=up) is None
    assert choose(address="local", last_used=LAST, brought_up=up) is None
    assert choose(environ={"RAY_DASHBOARD_URL": "x"}, last_used=LAST, brought_up=up) is None
    assert choose(environ={"RAY_API_SERVER_ADDRESS": "x"}, last_used=LAST, brought_up=up) is None
    assert choose(last_used=LAST, here_since_s=math.inf) == "kimi-16xh100"


def test_two_names_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="not both --cluster and --address"):
        choose(cluster=NAMED, address="local")


def test_what_ray_up_brought_up_last_is_meant_after_what_ran_here_before(file: ClusterFile) -> None:
    up = [BroughtUp(file, 100.0)]
    assert choose(brought_up=up) == "kimi-16xh100"
    assert choose(brought_up=up, here_since_s=99.0) == "kimi-16xh100"
    said: list[str] = []
    assert choose(brought_up=up, here_since_s=101.0, said=said) is None
    assert said == [
        f"note: a Ray runs here and is meant; `ray up` brought up kimi-16xh100 (--cluster {file.path})",
    ]
    assert choose(here_since_s=1.0) is None
    assert choose() is None


def test_of_several_none_is_guessed(file: ClusterFile) -> None:
    other = replace(file, name="other", path=Path("cluster-configs/other.yaml"))
    with pytest.raises(ConfigError, match=r"several clusters: .*other \(--cluster cluster-configs/other.yaml\)"):
        choose(brought_up=[BroughtUp(file, 100.0), BroughtUp(other, 50.0)])
    assert choose(brought_up=[BroughtUp(file, 100.0), BroughtUp(other, 50.0)], here_since_s=70.0) == "kimi-16xh100"


def test_the_cluster_used_last_is_remembered_until_it_is_forgotten(file: ClusterFile) -> None:
    assert which.last_used() is None
    which.remember(file)
    assert which.last_used() == file.path.absolute()
    which.forget(replace(file, path=NAMED))
    assert which.last_used() == file.path.absolute(), "`down` of another cluster"
    which.forget(file)
    assert which.last_used() is None


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml, which is gone; name another with --cluster FILE, or --address"):
        choose(last_used=tmp_path / "gone.yaml")
