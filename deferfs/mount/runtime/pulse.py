"""A reusable event, unlike trio.Event."""

from __future__ import annotations

import trio


class Pulse:
    """`set` wakes the waiters, and tasks do not wait until `clear`; `beat` only wakes the current waiters. Neither
    waits or allocates.

    A task that sleeps until one of several tasks has work for it uses `set` and `clear`; tasks that check a condition
    again after every change wait for a `beat`.
    """

    __slots__ = ("_lot", "is_set")

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self.is_set = False

    def set(self) -> None:
        """Wake all waiters; `wait` returns at once until `clear`."""
        self.is_set = True
        self._lot.unpark_all()

    def clear(self) -> None:
        """From now on `wait` blocks."""
        self.is_set = False

    def beat(self) -> None:
        """Wake all waiters."""
        if self._lot:
            self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait for `set` or `beat`; a checkpoint in any case."""
        if self.is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()
