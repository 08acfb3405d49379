"""Writing the access times that inodes owe which are not in core any more: those of one table block together, and along
with whatever else changes the block."""

from __future__ import annotations

from functools import partial

from deferfs.ondisk.inode import InodeBlock
from deferfs.reclaim.debts import TimeDebts
from deferfs.store.plan import Plan


class Repayment:
    """Pays from one table of debts."""

    def __init__(self, debts: TimeDebts) -> None:
        self.debts = debts
        self.blocks_total = 0
        """Updates that were made for nothing else."""

    def pay(self, plan: Plan, first: int) -> None:
        """An operation: write what the inodes of one table block owe; `first` is the one in front."""
        address, _ = plan.store.inodes.locate(plan, first)
        if not self._owed(plan, address, first):
            return
        block = plan.modify(address, InodeBlock)
        self.go_along(plan, address, block, first)
        plan.on_apply.append(self._count_block)

    def _count_block(self) -> None:
        self.blocks_total += 1

    def _owed(self, plan: Plan, address: int, first: int) -> bool:
        """Whether anything is to be written there. What inodes owed that are gone by now is void."""
        fmt = plan.store.fmt
        owed = False
        for ino, generation, time in self.debts.of_block(first, fmt.inodes_per_block):
            record = plan.get(address, InodeBlock).record(fmt, address, ino - first) if address else None
            if record is not None and record.mode and record.generation == generation:
                owed = True
            else:
                plan.on_apply.append(partial(self.debts.settle, ino, time))
        return owed

    def go_along(self, plan: Plan, address: int, block: InodeBlock, first: int) -> None:
        """The staged table block with inode `first` in front is changed in any case: what its inodes owe goes along."""
        fmt = plan.store.fmt
        for ino, generation, time in self.debts.of_block(first, fmt.inodes_per_block):
            if ino in plan.inodes:
                continue
            record = block.record(fmt, address, ino - first)
            if not record.mode or record.generation != generation:
                continue
            if time > record.atime:
                changed = record.copy()
                changed.atime = time
                block.records[ino - first] = changed
            plan.on_apply.append(partial(self.debts.settle, ino, time))
