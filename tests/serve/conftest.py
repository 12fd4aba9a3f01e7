"""A front with replicas, shared by the tests that leave it as they found it, and an empty one for the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.front_process import FrontProcess, eventually, running_front


@pytest.fixture(scope="module")
def shared_front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """Serves `smol` (two replicas, key needed, alias org/Smol) and `open` (no key)."""
    with running_front(tmp_path_factory.mktemp("shared front")) as front:
        front.add_replica("smol", "smol-1", "--alias", "org/Smol")
        front.add_replica("smol", "smol-2", "--alias", "org/Smol")
        front.add_replica("open", "open-1", "--no-auth")
        eventually(lambda: front.served("smol") and front.served("open"))
        yield front


@pytest.fixture
def name(shared_front: FrontProcess) -> Iterator[str]:
    """The name of a deployment that is the test's own."""
    yield "fresh"
    shared_front.forget("fresh")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontProcess]:
    """A front of the test's own, without a replica."""
    with running_front(tmp_path) as alone:
        yield alone
