"""The orphan table: inodes without a name that wait to be inactivated, durable in the transaction of the unlink.

**Invariants:** every inode with nlink 0 has exactly one slot, which its record names (`orphan_slot` = slot + 1); the
table's file has no holes and its last block holds a used slot; `free` and `used` agree with the published blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from heapq import heapify, heappop, heappush

from deferfs.errors import CorruptionError
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import ORPHAN_FILE_INO, Inode
from deferfs.ondisk.orphan import FREE_SLOT, ORPHAN_QUARANTINED, OrphanBlock, OrphanSlot
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.plan import Plan

_NUMBER_BYTES = 40
"""Of an integer in a list."""
_SLOT_BYTES = 320
"""Of a decoded slot with its number, measured with tracemalloc."""


class RecoveredOrphans:
    """The orphans that the table held when it was opened and that inodegc has not taken yet.

    It holds the blocks of the table as they are on disk until their slots are taken: 33 bytes an orphan, or a block of
    the table for each that is used in part.

    **Invariant:** a slot is in here until it is taken, and nobody else changes it before: only its inactivation does.
    """

    def __init__(self, fmt: Format) -> None:
        self._fmt = fmt
        self._blocks: list[tuple[int, int, bytes]] = []
        """(first slot, address, content) of the blocks that are not decoded yet."""
        self._slots: list[tuple[int, OrphanSlot]] = []
        self._count = 0
        self.held_blocks = 0
        """Blocks that the inodes not taken yet hold."""

    def __len__(self) -> int:
        return self._count

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes."""
        return len(self._blocks) * (self._fmt.block_size + 200) + len(self._slots) * _SLOT_BYTES

    def add(self, first: int, used: int, address: int, data: bytes) -> None:
        """One block of the table, with `used` used slots from slot `first` on."""
        if used:
            self._blocks.append((first, address, data))
            self._count += used
            self.held_blocks += OrphanBlock.total_blocks(self._fmt, data)

    def take(self, count_max: int) -> list[tuple[int, OrphanSlot]]:
        """Up to `count_max` of them: (slot, content). Those in quarantine are among them."""
        while self._blocks and len(self._slots) < count_max:
            first, address, data = self._blocks.pop()
            slots = OrphanBlock.decode(self._fmt, address, data).slots
            self._slots.extend((first + i, slot) for i, slot in enumerate(slots) if slot.ino)
        taken = self._slots[-count_max:]
        del self._slots[-count_max:]
        self._count -= len(taken)
        for _, slot in taken:
            self.held_blocks -= slot.blocks
        return taken


class OrphanTable:
    """Slots by number; a slot number never changes while it is used."""

    def __init__(self, slots_per_block: int) -> None:
        self.per_block = slots_per_block
        self.used: list[int] = []
        """Used slots of each block of the table."""
        self.free: list[int] = []
        """Heap of free slots in mapped blocks (and, until they are popped, in unmapped ones)."""
        self.on_change: Callable[[int, int], None] = _nobody
        """Called with an orphan's number and the blocks it holds now, when an operation has changed them."""

    @property
    def count(self) -> int:
        return sum(self.used)

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes."""
        return (len(self.used) + len(self.free)) * _NUMBER_BYTES

    def load(self, fmt: Format, blocks: list[tuple[int, bytes]]) -> RecoveredOrphans:
        """Take in the table as it is on disk, block by block (address, content). CorruptionError.

        Full blocks, which are nearly all of a long table, are only counted: a mount must not take longer for them.
        """
        found = RecoveredOrphans(fmt)
        for number, (address, data) in enumerate(blocks):
            first = number * self.per_block
            used = OrphanBlock.count(fmt, address, data)
            if used < self.per_block:
                slots = OrphanBlock.decode(fmt, address, data).slots
                self.free.extend(first + i for i, slot in enumerate(slots) if not slot.ino)
            self.used.append(used)
            found.add(first, used, address, data)
        heapify(self.free)
        return found

    def add(self, plan: Plan, inode: Inode) -> None:
        """Enter an inode that lost its last name; `inode` is the plan's own copy."""
        limit = len(self.used) * self.per_block
        while self.free and self.free[0] >= limit:
            heappop(self.free)
        grow = not self.free
        slot = limit if grow else self.free[0]
        number, index = divmod(slot, self.per_block)
        if grow:
            address, _ = plan.allocate(0, 1)
            plan.create(address, OrphanBlock.fresh(plan.store.fmt))
            extents.insert(plan, plan.store.inodes.modify(plan, ORPHAN_FILE_INO), Mapping(number, address, 1, False))
        block = plan.modify(self._address(plan, number), OrphanBlock)
        block.slots[index] = OrphanSlot(inode.ino, inode.generation, 0, 0, inode.blocks)
        inode.orphan_slot = slot + 1
        plan.on_apply.append(lambda: self._added(slot, grow=grow))

    def _added(self, slot: int, *, grow: bool) -> None:
        number = slot // self.per_block
        if grow:
            self.used.append(0)
            for free in range(slot + 1, slot + self.per_block):
                heappush(self.free, free)
        else:
            heappop(self.free)
        self.used[number] += 1

    def progress(self, plan: Plan, inode: Inode, cursor: int) -> None:
        """A step of the inactivation is done: `cursor` logical blocks are left to look at."""
        number, index = divmod(inode.orphan_slot - 1, self.per_block)
        slots = self._slots_of(plan, number)
        slots[index] = slots[index]._replace(cursor=cursor)

    def look(self, plan: Plan, inode: Inode) -> None:
        """Have the block of the inode's slot at hand: `follow` must not lack it."""
        plan.get(self._address(plan, (inode.orphan_slot - 1) // self.per_block), OrphanBlock)

    def follow(self, plan: Plan, records: list[Inode]) -> None:
        """The plan changes orphans, which somebody has open or which are being inactivated: their slots go on telling
        how many blocks they hold."""
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
        """Remember on disk that the inactivation of an inode is not to be tried again (or that it is). Nothing when the
        slot is another one's by now, even of one that has its number."""
        number, index = divmod(slot, self.per_block)
        slots = self._slots_of(plan, number)
        if (slots[index].ino, slots[index].generation) == (ino, generation):
            slots[index] = slots[index]._replace(flags=ORPHAN_QUARANTINED if quarantined else 0)

    def clear(self, plan: Plan, inode: Inode) -> None:
        """The inode is done with (or linked again); trailing blocks without used slots are freed."""
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
        plan.on_apply.append(lambda: self._cleared(slot, keep))

    def _cleared(self, slot: int, keep: int) -> None:
        self.used[slot // self.per_block] -= 1
        del self.used[keep:]
        if slot < keep * self.per_block:
            heappush(self.free, slot)

    def _slots_of(self, plan: Plan, number: int) -> list[OrphanSlot]:
        """The plan's own copy of the slots of a block of the table."""
        return plan.modify(self._address(plan, number), OrphanBlock).slots

    def _address(self, plan: Plan, number: int) -> int:
        if not 0 <= number <= len(self.used):
            raise CorruptionError(f"the orphan table has no block {number}")
        table = plan.store.inodes.get(plan, ORPHAN_FILE_INO)
        return extents.map_range(plan, table, number, 1)[0].physical


def _nobody(ino: int, blocks: int) -> None:
    """Nobody wants to know."""
