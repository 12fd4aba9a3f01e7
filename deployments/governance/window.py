"""A sliding minute: how much of something was used in the last 60 s. Pure: time is handed in."""

from __future__ import annotations

import math
from collections import deque

from orchestrator.store.usage import WINDOW_S


class Window:
    """Amounts by the second. An amount counts until the second after it is a minute old: never short of a minute."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque()
        self.total = 0

    def add(self, at_s: float, amount: int) -> None:
        """`amount` was used at `at_s`; times may not run backwards by more than the clock's own steps."""
        second = int(at_s)
        if self._seconds and self._seconds[-1][0] >= second:
            last, before = self._seconds.pop()
            self._seconds.append((last, before + amount))
        else:
            self._seconds.append((second, amount))
        self.total += amount

    def forget_before(self, now_s: float) -> None:
        """Drop what is a minute old."""
        while self._seconds and self._seconds[0][0] + WINDOW_S + 1 <= now_s:
            self.total -= self._seconds.popleft()[1]

    def wait_s(self, now_s: float, amount: int) -> float:
        """How long until `amount` less than now counts (all of it, where that much was not used)."""
        freed, until_s = 0, now_s
        for second, used in self._seconds:
            if freed >= amount:
                break
            freed, until_s = freed + used, second + WINDOW_S + 1
        return math.ceil(max(0.0, until_s - now_s) * 1000) / 1000
