"""The orphan table: inodes with no name left, to be inactivated; durable in the transaction of the unlink.

**Invariants:** every inode with nlink 0 has exactly one slot, which its record names (`orphan_slot` = slot + 1); the
table's file has no holes and its last block holds a used slot; `with_free_slots` and `used` agree with the published
blocks.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

from deferfs.errors import CorruptionError
from deferfs.limits import ORPHAN_BLOCKS_MAX
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import ORPHAN_FILE_INO, Inode
from deferfs.ondisk.orphan import FREE_SLOT, ORPHAN_QUARANTINED, OrphanBlock, OrphanSlot
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.plan import Plan

_NUMBER_BYTES = 16
"""Resident bytes of a small integer in a list."""


class OrphanTable:
    """Slots by number; the number of a used slot never changes."""

    def __init__(self, slots_per_block: int) -> None:
        self.per_block = slots_per_block
        self.used: list[int] = []
        """Used slots of each table block."""
        self.with_free_slots: list[int] = []
        """Heap of the table blocks with a free slot, each once."""
        self.held = array("Q")
        """Blocks held by the inodes of each table block, as found when the table was loaded."""
        self.quarantined: list[tuple[int, OrphanSlot]] = []
        """(slot, content) of the quarantined inodes found when the table was loaded."""
        self.on_change: Callable[[int, int], None] = _ignored
        """Called with the number of an orphan and the blocks it holds now, after an operation changed them."""
        self.on_grow: Callable[[int], None] = _nothing
        """Called with the number of table blocks when it has grown."""

    @property
    def count(self) -> int:
        return sum(self.used)

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes."""
        return (len(self.used) + len(self.with_free_slots)) * _NUMBER_BYTES + 8 * len(self.held)

    def load(self, fmt: Format, address: int, data: bytes) -> None:
        """Load the next table block from disk. CorruptionError.

        Slots are only counted, except those in quarantine: neither time nor memory of a mount may grow with the table.
        """
        used = OrphanBlock.count(fmt, address, data)
        if OrphanBlock.flagged(fmt, data):
            first = len(self.used) * self.per_block
            slots = enumerate(OrphanBlock.decode(fmt, address, data).slots, first)
            self.quarantined.extend((number, slot) for number, slot in slots if slot.flags & ORPHAN_QUARANTINED)
        if used < self.per_block:
            self.with_free_slots.append(len(self.used))  # ascending: a heap
        self.used.append(used)
        self.held.append(min(OrphanBlock.total_blocks(fmt, data), self.per_block * ORPHAN_BLOCKS_MAX) if used else 0)

    def slots(self, plan: Plan, number: int) -> list[OrphanSlot]:
        """The published slots of a table block, not to be changed."""
        return plan.get(self._address(plan, number), OrphanBlock).slots

    def add(self, plan: Plan, inode: Inode) -> None:
        """Add an inode that lost its last name; `inode` is the plan's own copy."""
        grow = not self.with_free_slots
        number = len(self.used) if grow else self.with_free_slots[0]
        if grow:
            address, _ = plan.allocate(0, 1)
            plan.create(address, OrphanBlock.fresh(plan.store.fmt))
            extents.insert(plan, plan.store.inodes.modify(plan, ORPHAN_FILE_INO), Mapping(number, address, 1, False))
        slots = plan.modify(self._address(plan, number), OrphanBlock).slots
        index = _free_slot(slots)
        slots[index] = OrphanSlot(inode.ino, inode.generation, 0, 0, inode.blocks)
        inode.orphan_slot = number * self.per_block + index + 1
        plan.on_apply.append(lambda: self._added(number, grow=grow))

    def _added(self, number: int, *, grow: bool) -> None:
        if grow:
            self.used.append(0)
            heappush(self.with_free_slots, number)
            self.on_grow(len(self.used))
        self.used[number] += 1
        if self.used[number] == self.per_block:
            heappop(self.with_free_slots)

    def progress(self, plan: Plan, inode: Inode, cursor: int) -> None:
        """Record the progress of the inactivation: `cursor` logical blocks are left to free."""
        number, index = divmod(inode.orphan_slot - 1, self.per_block)
        slots = self._slots_of(plan, number)
        slots[index] = slots[index]._replace(cursor=cursor)

    def look(self, plan: Plan, inode: Inode) -> None:
        """Read the table block of the inode's slot now, so that `follow` raises no Need."""
        plan.get(self._address(plan, (inode.orphan_slot - 1) // self.per_block), OrphanBlock)

    def follow(self, plan: Plan, records: list[Inode]) -> None:
        """Update the block counts in the slots of orphans that the plan changes, open or being inactivated."""
        for inode in records:
            if not inode.orphan_slot:
                continue
            number, index = divmod(inode.orphan_slot - 1, self.per_block)
            address = self._address(plan, number)
            if plan.get(address, OrphanBlock).slots[index].blocks != inode.blocks:
                slots = plan.modify(address, OrphanBlock).slots
                slots[index] = slots[index]._replace(blocks=inode.blocks)
                ino, blocks = inode.ino, inode.blocks
                plan.on_apply.append(partial(self.on_change, ino, blocks))

    def set_quarantine(self, plan: Plan, slot: int, ino: int, generation: int, *, quarantined: bool) -> None:
        """Flag on disk that an inode is in quarantine, or clear the flag. Does nothing when the slot has been reused,
        even by an inode of the same number (see the generation)."""
        number, index = divmod(slot, self.per_block)
        slots = self._slots_of(plan, number)
        if (slots[index].ino, slots[index].generation) == (ino, generation):
            slots[index] = slots[index]._replace(flags=ORPHAN_QUARANTINED if quarantined else 0)

    def clear(self, plan: Plan, inode: Inode) -> None:
        """Free the slot of an inode that is freed or linked again; trailing table blocks without used slots are
        freed."""
        slot = inode.orphan_slot - 1
        inode.orphan_slot = 0
        number, index = divmod(slot, self.per_block)
        slots = self._slots_of(plan, number)
        if slots[index].ino != inode.ino:
            raise CorruptionError(f"orphan slot {slot} does not hold inode {inode.ino}")
        slots[index] = FREE_SLOT
        keep = len(self.used)
        while keep and not self.used[keep - 1] - (keep - 1 == number):
            keep -= 1
        if keep < len(self.used):
            table = plan.store.inodes.modify(plan, ORPHAN_FILE_INO)
            for piece in extents.remove(plan, table, keep, len(self.used)):
                for address in range(piece.physical, piece.physical + piece.length):
                    plan.free_metadata(address)
        plan.on_apply.append(lambda: self._cleared(number, keep))

    def _cleared(self, number: int, keep: int) -> None:
        if self.used[number] == self.per_block:
            heappush(self.with_free_slots, number)
        self.used[number] -= 1
        if keep < len(self.used):
            del self.used[keep:]
            self.with_free_slots = [number for number in self.with_free_slots if number < keep]
            heapify(self.with_free_slots)

    def _slots_of(self, plan: Plan, number: int) -> list[OrphanSlot]:
        """The plan's own copy of the slots of a table block."""
        return plan.modify(self._address(plan, number), OrphanBlock).slots

    def _address(self, plan: Plan, number: int) -> int:
        if not 0 <= number <= len(self.used):
            raise CorruptionError(f"the orphan table has no block {number}")
        table = plan.store.inodes.get(plan, ORPHAN_FILE_INO)
        return extents.map_range(plan, table, number, 1)[0].physical


def _free_slot(slots: list[OrphanSlot]) -> int:
    """Index of the first free slot. CorruptionError when there is none."""
    for index, slot in enumerate(slots):
        if not slot.ino:
            return index
    raise CorruptionError("a block of the orphan table has fewer free slots than its header says")


def _ignored(ino: int, blocks: int) -> None:
    """Default of `on_change`."""


def _nothing(blocks: int) -> None:
    """Default of `on_grow`."""
