"""Pays what inodes owe that have left core: access times, all that are owed to one table block by one update.

**Invariants**
- It runs when the table of debts is half full, when the oldest debt is as old as a commit may be, and when its end is
  waited for (flush, unmount); never while inodegc is stopped.
- It holds nothing while it waits: before each update it waits until no more than its share of the budget is dirty.
- A debt that cannot be paid with those beside it goes back into core, to inodegc, which tries again and puts it into
  quarantine alone.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import DEBTS_PLACES_A_TURN, DIRTY_WAIT_SECONDS_MAX
from deferfs.reclaim.lockdep import GC_DRAIN

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

log = logging.getLogger(__name__)


class Payer:
    """One task."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.debts = runtime.volume.inodes.debts
        self._wake = trio.Event()
        self._hurried = False
        """The end is waited for: all is paid, without delay."""
        self._progress = trio.Event()
        self._at = 0
        """The place in the table at which the last sweep left off."""

    @property
    def has_work(self) -> bool:
        """Whether anything is owed that can still be paid."""
        return bool(self.debts.count) and self.runtime.store.journal.aborted is None

    def noted(self) -> None:
        """Cheap: called when inodes may have left debts."""
        if self.debts.count * 2 > self.debts.count_max:
            self._wake.set()

    def hurry(self) -> None:
        """Have everything paid without delay."""
        if self.debts.count:
            self._hurried = True
            self._wake.set()

    async def room(self) -> None:
        """Wait until an inode that owes can leave core, and not longer than DIRTY_WAIT_SECONDS_MAX."""
        workers = self.runtime.workers
        self.runtime.checker.might_wait("gc")
        with trio.move_on_after(DIRTY_WAIT_SECONDS_MAX):
            while self.debts.full and not workers.stopped and self.runtime.store.journal.aborted is None:
                self._wake.set()
                await self._progress.wait()

    async def run(self) -> None:
        """The task."""
        self.runtime.activity.be("inodegc times")
        workers = self.runtime.workers
        while True:
            with trio.move_on_after(self.runtime.background.commit_seconds) as patience:
                await self._wake.wait()
            if not self._hurried:
                self._wake = trio.Event()  # in a hurry one sweep follows the other until nothing is left
            if not self.debts.count:
                self._hurried, self._wake = False, trio.Event()
                continue
            if self.runtime.store.journal.aborted is not None:
                return  # nothing is written any more
            if workers.stopped:
                await workers.resumed()
            goal = 0 if self._hurried or patience.cancelled_caught else self.debts.count_max // 4
            with workers.at_work():
                await self._sweep(goal)
            await trio.lowlevel.checkpoint()

    async def _sweep(self, goal: int) -> None:
        """Go once through the table at most, until no more than `goal` debts are left."""
        debts, fmt = self.debts, self.runtime.store.fmt
        for _ in range(0, debts.places, DEBTS_PLACES_A_TURN):
            if debts.count <= goal and not self._hurried:
                return
            found = debts.debtors(self._at, DEBTS_PLACES_A_TURN)
            self._at = (self._at + DEBTS_PLACES_A_TURN) % debts.places
            for first in sorted({fmt.first_in_table_block(ino) for ino in found}):
                await self.runtime.background.within_share_of_cleanup()
                if self.runtime.workers.stopped:
                    return
                await self._pay(first)
                await self.runtime.workers.end_turn(background=not self._hurried)
            self._tell()
            await trio.lowlevel.checkpoint()

    async def _pay(self, first: int) -> None:
        runtime, debts = self.runtime, self.debts
        try:
            with runtime.checker.holding("inodegc times", GC_DRAIN):
                await runtime.run_reserved(partial(runtime.volume.repayment.pay, first=first))
        except FsError as error:
            log.warning("access times of inodes %d.. could not be written: %s", first, error)
            for ino, generation, _ in debts.of_block(first, runtime.store.fmt.inodes_per_block):
                runtime.volume.gc.enqueue(runtime.volume.inodes.unpaid(ino, generation))

    def _tell(self) -> None:
        event, self._progress = self._progress, trio.Event()
        event.set()
        self.runtime.workers.tell()
