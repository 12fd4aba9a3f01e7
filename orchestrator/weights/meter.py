"""How far a transfer is: bytes, rate and time left. The clock is handed in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.units import format_bytes, format_seconds

# The rate is that of the last seconds: long enough to be steady, short enough to show a line that went dead.
WINDOW_S = 20.0


@dataclass(frozen=True)
class Reading:
    """One look at a transfer; `eta_s` is None while nothing moves."""

    phase: str
    done_bytes: int
    total_bytes: int
    bytes_per_s: float
    eta_s: float | None

    def __str__(self) -> str:
        """`fetching 1.2 GiB of 9.6 GiB, 110 MiB/s, 1 min 18 s left`."""
        if not self.total_bytes:
            return self.phase
        text = f"{self.phase} {format_bytes(self.done_bytes)} of {format_bytes(self.total_bytes)}"
        if self.bytes_per_s:
            text += f", {format_bytes(self.bytes_per_s)}/s"
        return text if self.eta_s is None else f"{text}, {format_seconds(self.eta_s)} left"


class Meter:
    """Counts bytes from many threads."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._lock = threading.Lock()
        self.begin("", 0)

    def begin(self, phase: str, total_bytes: int, done_bytes: int = 0) -> None:
        """A phase of `total_bytes`, of which `done_bytes` need not be moved."""
        with self._lock:
            self._phase, self._total, self._done = phase, total_bytes, done_bytes
            self._seen = deque([(self._now_s(), done_bytes)])

    def advance(self, size_bytes: int) -> None:
        """Some bytes have moved; fewer than none where some must be moved again."""
        with self._lock:
            self._done += size_bytes

    def read(self) -> Reading:
        with self._lock:
            now, done = self._now_s(), self._done
            self._seen.append((now, done))
            while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
                self._seen.popleft()
            begun, before = self._seen[0]
            rate = max(0.0, (done - before) / (now - begun)) if now > begun else 0.0
            left = self._total - done
            return Reading(self._phase, done, self._total, rate, left / rate if rate and left > 0 else None)
