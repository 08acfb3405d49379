"""Pays what inodes owe that have left core: access times, all that are owed to one table block by one update.

**Invariants**
- It runs when the table of debts is half full, when the oldest debt is as old as a commit may be, and when its end is
  waited for (flush, unmount); never while inodegc is stopped.
- It holds nothing while it waits: before each update it waits until no more than its share of the budget is dirty
  (in a hurry, no more than operations may make so).
- A debt that cannot be paid with those beside it goes back into core, to inodegc, which tries again and puts it into
  quarantine alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.limits import DEBTS_PLACES_A_TURN
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
        self.debts = engine.volume.inodes.debts
        self._engine = engine
        self._cleanup = engine.cleanup
        self._journal = engine.store.journal
        self._drive = tasks.drive
        self._activity = instruments.activity
        self._turns = turns
        self._wake = Pulse()
        self._hurried = False
        """The end is waited for: all is paid, without delay."""
        self._at = 0
        """The place in the table at which the last sweep left off."""
        engine.eviction.on_shrunk = self.noted
        tasks.register({DebtsFit: self._wait_room})

    @property
    def has_work(self) -> bool:
        """Whether anything is owed that can still be paid."""
        return bool(self.debts.count) and self._journal.aborted is None

    def noted(self) -> None:
        """Cheap: called when inodes may have left debts."""
        if self.debts.count * 2 > self.debts.count_max:
            self._wake.set()

    def hurry(self) -> None:
        """Have everything paid without delay."""
        if self.debts.count:
            self._hurried = True
            self._wake.set()

    async def _wait_room(self, wait: DebtsFit) -> None:
        with trio.move_on_after(wait.seconds_max):
            while not wait.over():
                self._wake.set()
                await self._turns.progress()

    async def run(self) -> None:
        """The task."""
        self._activity.be("inodegc times")
        while True:
            with trio.move_on_after(self._engine.write_back.commit_seconds) as patience:
                await self._wake.wait()
            if not self._hurried:
                self._wake.clear()  # in a hurry one sweep follows the other until nothing is left
            if not self.debts.count:
                self._hurried = False
                self._wake.clear()
                continue
            if self._journal.aborted is not None:
                return  # nothing is written any more
            while self._cleanup.stopped:
                await self._turns.progress()
            goal = 0 if self._hurried or patience.cancelled_caught else self.debts.count_max // 4
            self._cleanup.busy += 1
            try:
                await self._sweep(goal)
            finally:
                self._cleanup.busy -= 1
                self._cleanup.told()
            await trio.lowlevel.checkpoint()

    async def _sweep(self, goal: int) -> None:
        """Go once through the table at most, until no more than `goal` debts are left."""
        debts, fmt = self.debts, self._engine.store.fmt
        for _ in range(0, debts.places, DEBTS_PLACES_A_TURN):
            if debts.count <= goal and not self._hurried:
                return
            found = debts.debtors(self._at, DEBTS_PLACES_A_TURN)
            self._at = (self._at + DEBTS_PLACES_A_TURN) % debts.places
            for first in sorted({fmt.first_in_table_block(ino) for ino in found}):
                await self._drive(self._cleanup.before_payment(hurried=self._hurried))
                if self._cleanup.stopped:
                    return
                await self._drive(self._cleanup.pay(first))
                await self._turns.end_turn(background=not self._hurried)
            self._cleanup.told()
            await trio.lowlevel.checkpoint()
