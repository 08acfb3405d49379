"""Writing owed access times: those of one table block together, and along with any other change of that block.

A payment takes along what inodes of its block owe that are still in core: the block is written anyway, and they owe
nothing when they leave.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.store.plan import Plan

if TYPE_CHECKING:
    from deferfs.store.store import Store


class Repayment:
    """Writes the access times that inodes owe which have left the cache `inodes`."""

    def __init__(self, inodes: InodeCache) -> None:
        self._inodes = inodes
        self.debts = inodes.debts
        self.blocks_total = 0
        """Table blocks updated for access times only."""

    def pay(self, plan: Plan, first: int) -> None:
        """Operation: write the access times owed in one table block, by inodes in core, too; `first` is its first
        inode. CorruptionError when the record of one that has left core is damaged."""
        owed = self._owed(plan, first)
        if owed:
            self._settle(plan, plan.store.inodes.raise_atimes(plan, first, owed))
        self._take_along(plan, first)
        for address in plan.staged:
            plan.on_apply.append(partial(self._written, plan.store, address))

    def go_along(self, plan: Plan, first: int) -> None:
        """Piggyback the access times owed in the table block that starts with inode `first`, which changes anyway. A
        damaged neighbour must not fail the operation."""
        owed = self._owed(plan, first)
        if owed:
            self._settle(plan, plan.store.inodes.raise_atimes(plan, first, owed, skip_damaged=True))

    def _take_along(self, plan: Plan, first: int) -> None:
        """Write what inodes of the block owe that are in core. A damaged one must not fail the others."""
        debtors = self._inodes.debtors_among(first, plan.store.fmt.inodes_per_block)
        if not debtors:
            return
        owed = [(inode.ino, inode.generation, inode.lazy_atime) for inode in debtors]
        for ino, _, time in plan.store.inodes.raise_atimes(plan, first, owed, skip_damaged=True):
            plan.on_apply.append(partial(self._settle_in_core, self._inodes.table[ino], time))

    def _settle_in_core(self, inode: InCoreInode, time: int) -> None:
        inode.paid(time)
        self.debts.paid_total += 1

    def _owed(self, plan: Plan, first: int) -> list[tuple[int, int, int]]:
        found = self.debts.of_block(first, plan.store.fmt.inodes_per_block)
        return [debt for debt in found if debt[0] not in plan.inodes] if found and plan.inodes else found

    def _settle(self, plan: Plan, owed: list[tuple[int, int, int]]) -> None:
        """Settle these debts when the plan is applied."""
        plan.on_apply.append(partial(self.debts.settle, owed))

    def _written(self, store: Store, address: int) -> None:
        """A payment does not count as a use of the table block: the inodes that owed have left core, and are not
        expected back soon. Marked as used, the block would stay cached longer than blocks in use."""
        self.blocks_total += 1
        store.cache.cool(address)
