"""The task that pays what inodes owe that have left core. When it does, how much, and in which order, the engine
decides (`volume/payment.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.waits import DebtsFit

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.mount.runtime.turns import Turns
    from deferfs.volume.engine import Engine


class Payer:
    """One task."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments, turns: Turns) -> None:
        self._payment = engine.payment
        self._write_back = engine.write_back
        self._drive = tasks.drive
        self._activity = instruments.activity
        self._wake = Pulse()
        engine.payment.on_due = self._wake.beat
        tasks.register({DebtsFit: turns.wait_over})

    async def run(self) -> None:
        """The task."""
        payment = self._payment
        self._activity.be("inodegc times")
        while True:
            with trio.move_on_after(self._write_back.commit_seconds) as patience:
                while not payment.due:
                    await self._wake.wait()
            await self._drive(payment.sweep(late=patience.cancelled_caught))
            await trio.lowlevel.checkpoint()
