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
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.lockdep import GC_DRAIN

if TYPE_CHECKING:
    from deferfs.mount.runtime.cleanup import Cleanup
    from deferfs.mount.runtime.committer import Committer
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)


class Payer:
    """One task."""

    def __init__(
        self,
        volume: Volume,
        run_reserved: RunReserved,
        instruments: Instruments,
        committer: Committer,
        cleanup: Cleanup,
    ) -> None:
        self.debts = volume.inodes.debts
        self._volume = volume
        self._journal = volume.store.journal
        self._run_reserved = run_reserved
        self._activity = instruments.activity
        self._checker = instruments.checker
        self._committer = committer
        self._cleanup = cleanup
        self._wake = Pulse()
        self._hurried = False
        """The end is waited for: all is paid, without delay."""
        self._progress = Pulse()
        self._at = 0
        """The place in the table at which the last sweep left off."""

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

    async def room(self) -> None:
        """Wait until an inode that owes can leave core, and not longer than DIRTY_WAIT_SECONDS_MAX."""
        self._checker.might_wait("gc")
        with trio.move_on_after(DIRTY_WAIT_SECONDS_MAX):
            while self.debts.full and not self._cleanup.stopped and self._journal.aborted is None:
                self._wake.set()
                await self._progress.wait()

    async def run(self) -> None:
        """The task."""
        self._activity.be("inodegc times")
        while True:
            with trio.move_on_after(self._committer.commit_seconds) as patience:
                await self._wake.wait()
            if not self._hurried:
                self._wake.clear()  # in a hurry one sweep follows the other until nothing is left
            if not self.debts.count:
                self._hurried = False
                self._wake.clear()
                continue
            if self._journal.aborted is not None:
                return  # nothing is written any more
            if self._cleanup.stopped:
                await self._cleanup.resumed()
            goal = 0 if self._hurried or patience.cancelled_caught else self.debts.count_max // 4
            with self._cleanup.at_work():
                await self._sweep(goal)
            await trio.lowlevel.checkpoint()

    async def _sweep(self, goal: int) -> None:
        """Go once through the table at most, until no more than `goal` debts are left."""
        debts, fmt = self.debts, self._volume.store.fmt
        for _ in range(0, debts.places, DEBTS_PLACES_A_TURN):
            if debts.count <= goal and not self._hurried:
                return
            found = debts.debtors(self._at, DEBTS_PLACES_A_TURN)
            self._at = (self._at + DEBTS_PLACES_A_TURN) % debts.places
            for first in sorted({fmt.first_in_table_block(ino) for ino in found}):
                await self._committer.within_share_of_cleanup()
                if self._cleanup.stopped:
                    return
                await self._pay(first)
                await self._cleanup.end_turn(background=not self._hurried)
            self._tell()
            await trio.lowlevel.checkpoint()

    async def _pay(self, first: int) -> None:
        volume = self._volume
        try:
            with self._checker.holding("inodegc times", GC_DRAIN):
                await self._run_reserved(partial(volume.repayment.pay, first=first))
        except FsError as error:
            log.warning("access times of inodes %d.. could not be written: %s", first, error)
            for ino, generation, _ in self.debts.of_block(first, volume.store.fmt.inodes_per_block):
                volume.gc.enqueue(volume.inodes.unpaid(ino, generation))

    def _tell(self) -> None:
        self._progress.beat()
        self._cleanup.tell()
