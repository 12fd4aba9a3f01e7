"""The purity fixture itself: each forbidden reach fails, so that no other unit test can make one unseen."""

from __future__ import annotations

import importlib
import socket
import subprocess
import time

import pytest

from tests.unit.conftest import ImpureUnitTest


def test_a_unit_test_cannot_open_a_connection() -> None:
    with socket.socket() as connection, pytest.raises(ImpureUnitTest):
        connection.connect(("127.0.0.1", 9))


def test_a_unit_test_cannot_start_a_process() -> None:
    with pytest.raises(ImpureUnitTest):
        subprocess.run(["true"], check=False)


def test_a_unit_test_cannot_read_the_clock() -> None:
    with pytest.raises(ImpureUnitTest):
        time.time()


@pytest.mark.parametrize("package", ["ray", "vllm", "torch"])
def test_a_unit_test_cannot_import_an_engine(package: str) -> None:
    with pytest.raises(ImpureUnitTest):
        importlib.import_module(f"{package}.anything")
