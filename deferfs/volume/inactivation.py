"""Inactivation: the work that is due before an inode can be evicted. All policies share this code.

It is a sequence of small operations, each of which reserves log space by itself (a rolling transaction), so that it
can be pre-empted between any two, and resumed after a crash at the step reached:

1. linked inode: write the lazy access time and trim the blocks past EOF. Done.
2. orphan: free the blocks from the end of the file, a bounded number of extents per operation, recording progress in
   the orphan slot; then free the xattrs, the record and the slot, in one operation.
"""

from __future__ import annotations

import errno
import stat
from functools import partial

from deferfs.errors import FsError
from deferfs.limits import INACTIVATION_EXTENTS_STEP
from deferfs.ondisk.inode import FLAG_PREALLOCATED, FLAG_TRUNCATING, FORM_EXTENT_TREE, FORM_EXTENTS, Inode
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.store import extents, xattrs
from deferfs.store.plan import Plan


class Inactivation:
    """The steps for one inode. `step` is an operation; run it until it returns True, then call `finish`."""

    __slots__ = ("cache", "inode")

    def __init__(self, cache: InodeCache, inode: InCoreInode) -> None:
        self.cache = cache
        self.inode = inode

    def begin(self) -> bool:
        """False when nothing is left to do: the inode became live again."""
        return self.cache.begin(self.inode)

    def step(self, plan: Plan) -> bool:
        """Do the next step; True when it was the last. The plan must be allowed to use the reserves. ESTALE when the
        inode number has been reused."""
        if self.inode.state is not State.INACTIVATING:
            return True
        record = plan.store.inodes.get(plan, self.inode.ino)
        if record.generation != self.inode.generation:
            raise FsError(errno.ESTALE, f"inode {self.inode.ino} has been reused")
        if record.nlink:
            return self._linked(plan)
        return self._orphan(plan)

    def finish(self) -> None:
        self.cache.finish(self.inode)

    def _linked(self, plan: Plan) -> bool:
        inode = self.inode
        record = plan.store.inodes.modify(plan, inode.ino)
        atime = inode.lazy_atime
        if atime:
            record.atime = max(record.atime, atime)
            plan.on_apply.append(partial(inode.paid, atime))
        if not trim(plan, record):
            return False
        plan.on_apply.append(self._trimmed)
        return True

    def _trimmed(self) -> None:
        self.inode.preallocated = False

    def _orphan(self, plan: Plan) -> bool:
        store = plan.store
        record = store.inodes.modify(plan, self.inode.ino)
        held = record.blocks
        if not free_data(plan, record):
            last = extents.last_mapping(plan, record)
            store.orphans.progress(plan, record, last.end if last is not None else 0)
            freed = held - record.blocks
            plan.on_apply.append(lambda: self.cache.freed(self.inode, freed))
            return False
        plan.on_apply.append(lambda: self.cache.freed(self.inode, held))
        xattrs.free(plan, record)
        store.orphans.clear(plan, record)
        store.inodes.free(plan, record.ino)
        return True


def has_extents(record: Inode) -> bool:
    """Whether the data of the inode lies in extents."""
    return record.form in (FORM_EXTENTS, FORM_EXTENT_TREE)


def free_data(plan: Plan, record: Inode) -> bool:
    """Free a bounded number of extents from the end; True when none is left."""
    if stat.S_ISDIR(record.mode) or not has_extents(record):
        # an orphaned directory is empty: its entries are inline, it holds no blocks
        return True
    plan.data_sync.add(record.ino)
    return _free_from(plan, record, 0)


def trim(plan: Plan, record: Inode) -> bool:
    """Free the blocks past EOF, speculative or left by a truncate; True when none is left."""
    if not record.flags & (FLAG_PREALLOCATED | FLAG_TRUNCATING):
        return True
    size = plan.store.fmt.block_size
    plan.data_sync.add(record.ino)
    if has_extents(record) and not _free_from(plan, record, -(-record.size // size)):
        return False
    record.flags &= ~(FLAG_PREALLOCATED | FLAG_TRUNCATING)
    return True


def _free_from(plan: Plan, record: Inode, keep: int) -> bool:
    """`extents.free_from`, stopped early when the plan nears the limit of one transaction."""
    credits_max = plan.store.operation_blocks_max
    for _ in range(INACTIVATION_EXTENTS_STEP):
        if extents.free_from(plan, record, keep, 1):
            return True
        if len(plan.staged) + len(plan.revoked) // 32 >= credits_max:
            return False
    return False
