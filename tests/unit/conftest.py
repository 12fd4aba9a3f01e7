"""Unit tests are pure: this fixture makes Ray, the network, the clock and subprocesses unreachable."""

from __future__ import annotations

import importlib.abc
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

# A slow machine is no failure.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

_ENGINE_PACKAGES = {"ray", "vllm", "torch"}
_OURS = ("orchestrator", "deployments", "tests")


class ImpureUnitTest(AssertionError):
    """A unit test, or the code under it, reached for the outside world."""


class _RefuseEngines(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in _ENGINE_PACKAGES:
            raise ImpureUnitTest(f"a unit test imported {fullname}")
        return None


def _refuse(what: str) -> Callable[..., Any]:
    def refuse(*_args: object, **_kwargs: object) -> Any:
        raise ImpureUnitTest(f"a unit test reached for {what}; hand it in from outside instead")

    return refuse


def _refuse_for_our_code(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """pytest, asyncio and hypothesis may read the clock; code of this project may not."""

    def guarded(*args: object, **kwargs: object) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] in _OURS:
            raise ImpureUnitTest(f"{caller} reached for {what}; hand it in from outside instead")
        return real(*args, **kwargs)

    return guarded


@pytest.fixture(autouse=True)
def _pure(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = _RefuseEngines()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.setattr(socket.socket, "connect", _refuse("the network"))
    monkeypatch.setattr(socket, "create_connection", _refuse("the network"))
    monkeypatch.setattr(subprocess.Popen, "__init__", _refuse("a subprocess"))
    # What the machine's owner has pulled is none of a test's business.
    monkeypatch.setenv("HF_HOME", "/nowhere/huggingface")
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for name in ("time", "monotonic", "perf_counter", "sleep", "time_ns"):
        monkeypatch.setattr(time, name, _refuse_for_our_code(f"time.{name}", getattr(time, name)))
