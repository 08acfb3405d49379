"""When access times are paid that inodes owe which have left core, how many of them, and in which order. All that is
owed to one block of the inode table is paid by one update (`cleanup.pay`).

A driver runs `sweep` when one is `due`, or when none has been for as long as a change may stay uncommitted (`late`):
one at a time.

**Invariants**
- A sweep is due when the table of debts is half full, when an operation waits for an entry in it, and when the end of
  payment is waited for (flush, unmount); never while inodegc is stopped, nor after an abort.
- It pays until a quarter of the table is left: what is young may still be paid along with another change of its
  block. In a hurry, and when it is late, it pays everything: then no debt is older than two of these intervals.
- A late one ends with a commit: what is owed when the load ends is durable one such interval later, and the requests
  that paying takes.
- It goes round the inode table, and begins where the one before it left off: no inode waits longer than for one round.
- What is owed to adjacent blocks, a *window*, is paid together, in the order of the disk: they are fetched by one read,
  and written home by one write. A disk that seeks takes as long for a block as for all of them.
- A window is paid as a whole, with what its inodes in core owe, too: those that leave core later would have its blocks
  written again, in fragments.
- It holds nothing while it waits: before each update it waits until no more than its share of the budget is dirty.
- A debt that cannot be paid with those beside it goes back into core, to inodegc, which tries again and puts it into
  quarantine alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import DEBTS_SLOTS_A_SCAN, FETCH_BYTES_MAX, PAYMENT_WINDOWS
from deferfs.volume.waits import Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class Payment:
    """Of the debts of one volume. `on_due`: a sweep may be due."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._debts = engine.volume.inodes.debts
        self.asked = False
        """More than half of the table is used, or an operation waits for a free slot."""
        self.hurried = False
        """The end is waited for: all is paid, sweep after sweep, without delay."""
        self.on_due: Callable[[], None] = _nothing
        self._at = 0
        """The inode with which the next sweep begins."""
        fmt = engine.store.fmt
        self._window = max(1, FETCH_BYTES_MAX // fmt.block_size) * fmt.inodes_per_block
        """Inodes of a window: as many adjacent blocks of the inode table as are fetched by one read."""

    @property
    def due(self) -> bool:
        """Whether a sweep is to begin."""
        cleanup = self._engine.cleanup
        return (self.asked or self.hurried) and cleanup.owes and not cleanup.stopped

    # --- asking ---
    def noted(self) -> None:
        """Cheap: called when inodes may have left debts."""
        if self._debts.count * 2 > self._debts.count_max:
            self.ask()

    def ask(self) -> None:
        """Request a sweep, which frees slots of the table."""
        self.asked = True
        self.on_due()

    def hurry(self) -> None:
        """Have everything paid without delay."""
        if self._debts.count:
            self.hurried = True
            self.on_due()

    # --- paying ---
    def sweep(self, *, late: bool = False) -> Task[None]:
        """Go once through the table at most, and pay what is due. `late`: none has been in a long time."""
        cleanup, debts = self._engine.cleanup, self._debts
        if cleanup.stopped or not cleanup.owes:
            self.hurried = self.hurried and bool(debts.count)
            return
        self.asked = False
        cleanup.busy += 1
        try:
            yield from self._pay_down_to(0 if self.hurried or late else debts.count_max // 4)
        finally:
            cleanup.busy -= 1
            cleanup.told()
        if not debts.count:
            self.hurried = False
        if late:
            self._engine.write_back.ask_commit()

    def _pay_down_to(self, goal: int) -> Task[None]:
        """Once round the inode table, until no more than `goal` debts are left; all of them once there is a hurry."""
        cleanup, start, round_ends = self._engine.cleanup, self._at, False
        while not self._enough(goal):
            windows = yield from self._next_windows()
            if not windows:
                if round_ends or not start:
                    return
                self._at, round_ends = 0, True
            for window in windows:
                if round_ends and window > start:
                    return
                yield from self._pay_window(window, goal)
                if cleanup.stopped or self._enough(goal):
                    return
                self._at = window + self._window
            cleanup.told()
            yield Reschedule()

    def _enough(self, goal: int) -> bool:
        return self._debts.count <= goal and not self.hurried

    def _next_windows(self) -> Task[list[int]]:
        """The next windows to which anything is owed, by their first inodes, in order: at most PAYMENT_WINDOWS."""
        debts, found = self._debts, set[int]()
        for place in range(0, debts.slots, DEBTS_SLOTS_A_SCAN):
            found.update(
                ino - ino % self._window for ino in debts.debtors(place, DEBTS_SLOTS_A_SCAN) if ino >= self._at
            )
            if len(found) > 2 * PAYMENT_WINDOWS:
                found = set(sorted(found)[:PAYMENT_WINDOWS])
            yield Reschedule()
        return sorted(found)[:PAYMENT_WINDOWS]

    def _pay_window(self, window: int, goal: int) -> Task[None]:
        """Pay what is owed to the inodes of one window, block by block, in the order in which the disk has them. Those
        of its blocks that are not cached are fetched together."""
        cleanup, fmt = self._engine.cleanup, self._engine.store.fmt
        debtors = self._debts.debtors_among(window, self._window)
        debtors += [inode.ino for inode in self._engine.volume.inodes.debtors_among(window, self._window)]
        owed = sorted({fmt.first_in_table_block(ino) for ino in debtors if ino >= self._at})
        yield from cleanup.before_payment(hurried=self.hurried)
        if not cleanup.stopped:
            yield from cleanup.fetch(owed)
        for first in owed:
            yield from cleanup.before_payment(hurried=self.hurried)
            if cleanup.stopped or self._enough(goal):
                return
            yield from cleanup.pay(first)
            self._at = first + fmt.inodes_per_block
            yield from self._engine.turns.end(background=not self.hurried)
