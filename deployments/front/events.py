"""What engines told while they started: a bounded, numbered record per deployment. Pure: time is handed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

MAX_EVENTS = 1000


@dataclass(frozen=True)
class Event:
    """One mark. `at_s` is the front's own clock, so that events of many nodes can be compared."""

    sequence: int
    at_s: float
    deployment: str
    replica: str
    kind: str
    detail: dict[str, Any]


class EventLog:
    """The last `MAX_EVENTS` events of all deployments."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._last = 0

    @property
    def last_sequence(self) -> int:
        return self._last

    def add(self, deployment: str, replica: str, kind: str, detail: dict[str, Any], at_s: float) -> Event:
        self._last += 1
        event = Event(self._last, at_s, deployment, replica, kind, detail)
        self._events.append(event)
        return event

    def since(self, deployment: str, sequence: int) -> list[Event]:
        """What a deployment told after event number `sequence`."""
        return [e for e in self._events if e.deployment == deployment and e.sequence > sequence]
