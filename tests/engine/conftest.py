"""One Ray, one front and one state folder for all engine tests, apart from whatever else runs on the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestrator.store.home import subfolder
from tests.engine.harness import Cli
from tests.ports import free_port


@pytest.fixture(scope="module")
def apart(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A command line of its own for one module; `cli` has nothing running meanwhile."""
    cli.json("down")
    home = tmp_path_factory.mktemp("home-apart")
    (home / "cache").symlink_to(subfolder("cache"))
    other = Cli(home, free_port())
    try:
        yield other
    finally:
        other.json("down")
        assert not other.engine_processes()


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command line, everything it started ended afterwards, to the last process."""
    home = tmp_path_factory.mktemp("home")
    (home / "cache").symlink_to(subfolder("cache"))  # demo models are built once on a machine
    cli = Cli(home, free_port())
    yield cli
    done = cli.run("down", timeout_s=120)
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 20
    while (left := cli.processes()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"left behind: {[process.cmdline() for process in left]}"
