"""Planted faults of orphans that wait in the orphan table alone; see `faults`."""

from __future__ import annotations

import pytest

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.spill import Spill, Spilled
from deferfs.store.plan import Plan
from deferfs.volume import orphans
from deferfs.volume.volume import Volume
from tests.property.faults import fault
from tests.property.log_faults import FAULTS

__all__ = ["FAULTS"]


@fault("orphans_in_the_table")
def a_look_up_does_not_call_an_orphan_back(patch: pytest.MonkeyPatch) -> None:
    """It is in core as if it had names, and is cached when it is let go."""
    patch.setattr(orphans, "recall", lambda volume, record: None)


@fault("orphans_in_the_table")
def an_orphan_in_use_is_read_back(patch: pytest.MonkeyPatch) -> None:
    """Its slot is used, and that is all that is looked at."""

    def waiting(plan: Plan, volume: Volume, number: int) -> list[Spilled]:
        slots = plan.store.orphans.slots(plan, number)
        first = number * plan.store.orphans.per_block
        return [Spilled(first + i, s.ino, s.generation, s.blocks) for i, s in enumerate(slots) if s.ino]

    patch.setattr(orphans, "_waiting", waiting)


@fault("orphans_in_the_table")
def the_last_orphan_of_a_table_block_is_not_read_back(patch: pytest.MonkeyPatch) -> None:
    original = orphans._waiting
    patch.setattr(orphans, "_waiting", lambda *where: original(*where)[:-1])


@fault("orphans_in_the_table")
def orphans_in_the_table_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Spill, "put", lambda spill, slot, blocks, extents, now_ns: None)


@fault("orphans_in_the_table")
def an_orphan_back_in_core_is_still_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Spill, "leave", lambda spill, slot, blocks: 0)


@fault("orphans_in_the_table")
def blocks_of_orphans_in_the_table_are_not_pending(patch: pytest.MonkeyPatch) -> None:
    original = InodeCache.leave_to_table

    def leave(cache: InodeCache, inode: InCoreInode) -> None:
        cache.pending_blocks -= inode.pending_blocks
        original(cache, inode)

    patch.setattr(InodeCache, "leave_to_table", leave)


@fault("orphans_in_the_table")
def an_orphan_within_the_bound_leaves_core_uncounted(patch: pytest.MonkeyPatch) -> None:
    """As if the table would remember that it waits."""
    original = InodeGc.queue

    def queue(gc: InodeGc, inode: InCoreInode) -> None:
        if inode.orphan and inode.slot >= 0:
            gc.cache.leave_to_table(inode)
        else:
            original(gc, inode)

    patch.setattr(InodeGc, "queue", queue)
