"""Writing the access times that inodes owe which are not in core any more: those of one table block together, and along
with whatever else changes the block."""

from __future__ import annotations

import errno
from functools import partial

from deferfs.errors import CorruptionError, FsError
from deferfs.reclaim.debts import TimeDebts
from deferfs.store.plan import Plan


class Repayment:
    """Pays from one table of debts."""

    def __init__(self, debts: TimeDebts) -> None:
        self.debts = debts
        self.blocks_total = 0
        """Updates that were made for nothing else."""

    def pay(self, plan: Plan, first: int) -> None:
        """An operation: write what the inodes of one table block owe; `first` is the one in front. CorruptionError when
        one of their records is damaged."""
        for ino, generation, time in self._owed(plan, first):
            self._write(plan, ino, generation, time)
        if plan.staged:
            plan.on_apply.append(self._count_block)

    def go_along(self, plan: Plan, first: int) -> None:
        """The table block with inode `first` in front is changed in any case: what its inodes owe goes along. Damage to
        one of them is not the business of the operation that changes another."""
        for ino, generation, time in self._owed(plan, first):
            try:
                self._write(plan, ino, generation, time)
            except CorruptionError:
                continue

    def _owed(self, plan: Plan, first: int) -> list[tuple[int, int, int]]:
        found = self.debts.of_block(first, plan.store.fmt.inodes_per_block)
        return [debt for debt in found if debt[0] not in plan.inodes] if found else found

    def _write(self, plan: Plan, ino: int, generation: int, time: int) -> None:
        """The debt of one inode; what it owed is void when it is gone by now."""
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
