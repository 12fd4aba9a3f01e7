"""Work on several files at once, ended soon after the first failure or Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from orchestrator.errors import OrchestratorError
from orchestrator.weights.meter import Meter
from orchestrator.weights.origin import Advance

# Files at once: one connection rarely fills a data centre's line, nor one reader a disk of several SSDs.
AT_ONCE = 8
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Stopped(OrchestratorError):
    """Another file failed, or somebody pressed Ctrl-C: this one ends too."""


def side_by_side(work: Callable[[_Item, Advance], _Result], items: Sequence[_Item], meter: Meter) -> list[_Result]:
    """The results of `work` in the order of `items`; what it moves is counted, and by that it hears when to end.

    Raises the first failure.
    """
    stop = threading.Event()

    def advance(size_bytes: int) -> None:
        if stop.is_set():
            raise Stopped
        meter.advance(size_bytes)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        futures = [pool.submit(work, item, advance) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            _raise_first(futures)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _raise_first(futures: Sequence[Future[_Result]]) -> None:
    for future in futures:
        if future.done() and (error := future.exception()) is not None:
            raise error
