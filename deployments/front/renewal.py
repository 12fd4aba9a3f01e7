"""Routes on demand: whoever changes what is served may wait until it is in force."""

from __future__ import annotations

import asyncio


class Renewal:
    """Requests for new routes. Those that come while routes are being renewed share the next renewal."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._next = asyncio.Event()

    async def renewed(self) -> None:
        """Ask for new routes; returns when a renewal that began after this call is over."""
        in_force = self._next
        self.asked.set()
        await in_force.wait()

    def begin(self) -> asyncio.Event:
        """A renewal begins: what is set when it is over."""
        self.asked.clear()
        in_force, self._next = self._next, asyncio.Event()
        return in_force

    def end(self) -> None:
        """There will be no renewal any more: nobody need wait for one."""
        self._next.set()
