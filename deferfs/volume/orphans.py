"""Orphans between the orphan table and inodegc: adopted at mount, and reloaded when inodegc gets to them.

The operations read a block of the table, which may have left the cache, and change only memory, in `apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.errors import CorruptionError
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.spill import NONE, Spill, Spilled
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan

if TYPE_CHECKING:
    from deferfs.reclaim.cache import InodeCache
    from deferfs.store.orphans import OrphanTable
    from deferfs.volume.volume import Volume

_PENDING = (State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING)
"""States of orphans whose blocks will be free."""


def take_up(table: OrphanTable, spill: Spill, cache: InodeCache, now_ns: int) -> None:
    """Leave the orphans found at mount in the table until inodegc gets to them, except those in quarantine."""
    spill.reserve(len(table.used))
    waiting, held = list(table.used), list(table.held)
    del table.held[:]
    cache.pending_blocks += sum(held)
    for number, slot in table.quarantined:
        if slot.ino in cache.table:
            continue  # a damaged table has it in two slots
        inode = cache.reload(slot.ino, slot.generation, number, slot.blocks)
        cache.begin(inode)
        cache.quarantine(inode)
        waiting[number // table.per_block] -= 1
        held[number // table.per_block] = max(0, held[number // table.per_block] - inode.pending_blocks)
    table.quarantined.clear()
    for number, count in enumerate(waiting):
        spill.found(number, count, held[number], now_ns)


def reload(plan: Plan, volume: Volume, count_max: int) -> int:
    """Queue up to `count_max` orphans of the table block that has waited longest, or is wanted out of turn. Returns the
    number of slots read, 0 when no orphan waits in the table alone. FsError when the block cannot be read."""
    gc = volume.gc
    number = gc.spill.upcoming()
    if number == NONE:
        return 0
    found = _waiting(plan, volume, number)
    if gc.spill.is_hastened(number):
        found.sort(key=_blocks, reverse=True)
    del found[count_max:]
    plan.on_apply.append(lambda: gc.reload(number, found))
    return max(1, len(found))


def reload_one(plan: Plan, volume: Volume, ino: int) -> bool:
    """Queue the inode out of turn if it waits only in the table; whether it does. FsError(ESTALE)."""
    record = plan.store.inodes.get(plan, ino)
    if not waits_in_table(volume, record):
        return False

    def queue() -> None:
        inode = recall(volume, record)
        if inode is not None:
            volume.gc.queue(inode)
            volume.gc.hasten([inode])

    plan.on_apply.append(queue)
    return True


def recall(volume: Volume, record: Inode) -> InCoreInode | None:
    """Bring an orphan that waits only in the table back in core, due for cleanup; None for any other inode."""
    if not waits_in_table(volume, record):
        return None
    return volume.gc.recall(Spilled(record.orphan_slot - 1, record.ino, record.generation, record.blocks))


def waits_in_table(volume: Volume, record: Inode) -> bool:
    """Whether the record is that of an orphan that is not in core."""
    return record.nlink == 0 and record.orphan_slot > 0 and record.ino not in volume.inodes.table


def _waiting(plan: Plan, volume: Volume, number: int) -> list[Spilled]:
    """The slots of one table block whose inodes are not in core."""
    table, orphans = volume.inodes.table, plan.store.orphans
    first = number * orphans.per_block
    found: dict[int, Spilled] = {}
    for index, slot in enumerate(orphans.slots(plan, number)):
        if slot.ino and slot.ino not in table:
            found[slot.ino] = Spilled(first + index, slot.ino, slot.generation, slot.blocks)
    return list(found.values())


def _blocks(one: Spilled) -> int:
    return one.blocks


def give_up(volume: Volume, error: Exception) -> str:
    """The next table block cannot be read: skip it and leave its orphans to fsck. Returns a line for the log."""
    number = volume.gc.spill.upcoming()
    count = volume.gc.spill.waits_in(number)
    volume.gc.reload(number, [])
    kind = "is damaged" if isinstance(error, CorruptionError) else "cannot be read"
    return f"block {number} of the orphan table {kind}: {error}; {count} deleted files are left to deferfs fsck"


def pending_blocks(volume: Volume) -> int:
    """What `InodeCache.pending_blocks` is to be, counted again: the blocks of all orphans that wait for inactivation
    or are in it, in core and in the table. O(inodes in core)."""
    inodes = volume.inodes.table.values()
    return volume.spill.blocks + sum(one.pending_blocks for one in inodes if one.orphan and one.state in _PENDING)
