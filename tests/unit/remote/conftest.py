"""A cluster file, and the head it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.remote.cluster_file import ClusterFile, Head, read_cluster_file

SHIPPED = Path(__file__).parents[3] / "cluster-configs"


@pytest.fixture(autouse=True)
def _state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "state"))


@pytest.fixture
def file() -> ClusterFile:
    return read_cluster_file(SHIPPED / "kimi-16xh100.yaml")


@pytest.fixture
def head(file: ClusterFile) -> Head:
    return Head(file, "10.0.0.1", Path("/home/me/.ssh/id 100%"))
