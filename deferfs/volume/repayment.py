"""Writing the owed access times of inodes that are no longer in core: those of one table block together, and along with
any other change of that block."""

from __future__ import annotations

import errno
from functools import partial

from deferfs.errors import CorruptionError, FsError
from deferfs.reclaim.debts import TimeDebts
from deferfs.store.plan import Plan


class Repayment:
    """Writes the access times owed in one table of debts."""

    def __init__(self, debts: TimeDebts) -> None:
        self.debts = debts
        self.blocks_total = 0
        """Table blocks updated for access times only."""

    def pay(self, plan: Plan, first: int) -> None:
        """Operation: write the access times owed in one table block; `first` is its first inode. CorruptionError when
        one of the records is damaged."""
        for ino, generation, time in self._owed(plan, first):
            self._write(plan, ino, generation, time)
        if plan.staged:
            plan.on_apply.append(self._count_block)

    def go_along(self, plan: Plan, first: int) -> None:
        """Piggyback the access times owed in the table block that starts with inode `first`, which changes anyway. A
        damaged neighbour must not fail the operation."""
        for ino, generation, time in self._owed(plan, first):
            try:
                self._write(plan, ino, generation, time)
            except CorruptionError:
                continue

    def _owed(self, plan: Plan, first: int) -> list[tuple[int, int, int]]:
        found = self.debts.of_block(first, plan.store.fmt.inodes_per_block)
        return [debt for debt in found if debt[0] not in plan.inodes] if found else found

    def _write(self, plan: Plan, ino: int, generation: int, time: int) -> None:
        """Write one debt, or drop it when the inode is gone."""
        inodes = plan.store.inodes
        try:
            alive = inodes.get(plan, ino).generation == generation
        except FsError as error:
            if error.errno != errno.ESTALE:
                raise
            alive = False
        if alive:
            record = inodes.modify(plan, ino)
            record.atime = max(record.atime, time)
        plan.on_apply.append(partial(self.debts.settle, ino, time))

    def _count_block(self) -> None:
        self.blocks_total += 1
