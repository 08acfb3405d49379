"""An event that is used again and again, unlike trio.Event."""

from __future__ import annotations

import trio


class Pulse:
    """Wakes the tasks that wait for it: with `set`, and those that come until `clear` do not wait; with `beat`, those
    that wait now, and nothing else changes. Neither waits itself, nor allocates.

    A task that sleeps until one of several tasks has work for it sets and clears; tasks that look again whenever
    something has changed wait for a beat.
    """

    __slots__ = ("_lot", "is_set")

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self.is_set = False

    def set(self) -> None:
        """Wake all, and let those pass that come until `clear`."""
        self.is_set = True
        self._lot.unpark_all()

    def clear(self) -> None:
        """Those that come now wait."""
        self.is_set = False

    def beat(self) -> None:
        """Wake all that wait."""
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Until `set` or `beat`; a checkpoint in any case."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()
