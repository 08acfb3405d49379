"""An open volume: the store, the in-core inodes above it, and what operations leave to the evict policy."""

from __future__ import annotations

import errno
import stat
from collections import OrderedDict

from deferfs.errors import FsError
from deferfs.limits import (
    DEBTS_FRACTION,
    DIRECTORY_COST_BYTES,
    GC_IN_CORE_MAX,
    INODE_COST_BYTES,
    NAME_BYTES_MAX,
    PAST_EOF_COST_BYTES,
)
from deferfs.ondisk.inode import FLAG_PREALLOCATED, FLAG_TRUNCATING, INODE_FILE_INO, ORPHAN_FILE_INO, Inode
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.debts import TimeDebts, slots_for
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import ActiveReference, InCoreInode
from deferfs.reclaim.policy import EvictPolicy, make_policy
from deferfs.reclaim.spill import Spill
from deferfs.store.plan import Plan
from deferfs.store.store import Store
from deferfs.volume import orphans
from deferfs.volume.repayment import Repayment


class Volume:
    """`due` collects inodes orphaned without an active reference: the driver hands them to the policy."""

    def __init__(
        self,
        store: Store,
        *,
        evict: str = "deferred",
        gc_in_core: int = GC_IN_CORE_MAX,
        atime: str = "relative",
        atime_of_directories: bool = True,
        content_times: bool = True,
    ) -> None:
        self.store = store
        self.inodes = InodeCache(TimeDebts(slots_for(store.memory.limit_bytes // DEBTS_FRACTION)))
        self.spill = Spill(store.fmt.orphans_per_block)
        self.gc = InodeGc(self.inodes, store.clock, span=store.fmt.inodes_per_chunk, spill=self.spill)
        self.gc.in_core_max = gc_in_core
        self.policy: EvictPolicy = make_policy(evict, self.gc)
        self.atime = atime
        """When a read updates the access time: `relative` (relatime), `strict` or `none`."""
        self.atime_of_directories = atime_of_directories
        self.content_times = content_times
        """Whether writes and truncates set mtime and ctime. Not with a writeback cache, where the kernel keeps and
        sends them: its clock is coarser, and it does not send again a time that it takes for sent."""
        self.due: list[InCoreInode] = []
        self.past_eof: OrderedDict[tuple[int, int], int] = OrderedDict()
        """(inode, generation) of files with speculative blocks past EOF -> time of last growth (ns), oldest first. May
        contain trimmed files: `InCoreInode.preallocated` is exact."""
        self.directories: OrderedDict[int, None] = OrderedDict()
        """In-core directories known to the kernel, coldest first."""
        self.directories_highest = 0
        """High-water mark of `directories`."""
        self.inodes.on_freed = self._freed
        store.orphans.on_change = self.inodes.orphan_holds
        store.orphans.on_grow = self.spill.reserve
        orphans.take_up(store.orphans, self.spill, self.inodes, store.clock())
        self.repayment = Repayment(self.inodes)
        store.inodes.on_change = self.repayment.go_along
        store.memory.add_account("debts", lambda: self.inodes.debts.resident_bytes)
        store.memory.add_account("inodes", self._inode_bytes, lambda: len(self.inodes.lru) * INODE_COST_BYTES)

    def _inode_bytes(self) -> int:
        lists = len(self.directories) * DIRECTORY_COST_BYTES + len(self.past_eof) * PAST_EOF_COST_BYTES
        return self.inodes.bytes + lists + self.spill.resident_bytes

    def _freed(self, ino: int) -> None:
        self.directories.pop(ino, None)

    def set_policy(self, name: str) -> None:
        """Switch the evict policy; queued inodes stay queued."""
        self.policy = make_policy(name, self.gc)

    def lookup_count(self, record: Inode, count: int = 1) -> None:
        """Count lookups of an inode that has been returned to the kernel."""
        if not record.nlink:
            orphans.recall(self, record)
        inode = self.inodes.lookup(record.ino, record.generation, count)
        if record.flags & (FLAG_PREALLOCATED | FLAG_TRUNCATING) and not inode.preallocated:
            self.note_past_eof(record.ino)
        if stat.S_ISDIR(record.mode):
            self.directories[record.ino] = None
            if len(self.directories) > self.directories_highest:
                self.directories_highest = len(self.directories)

    def hold(self, record: Inode) -> ActiveReference:
        """An active reference for an open handle or an operation in flight."""
        if not record.nlink:
            orphans.recall(self, record)
        return self.inodes.hold(record.ino, record.generation)

    def note_past_eof(self, ino: int) -> None:
        """The file has blocks past EOF: speculative, or left by an unfinished truncate."""
        inode = self.inodes.table.get(ino)
        if inode is not None:
            inode.preallocated = True
            self.past_eof[ino, inode.generation] = self.store.clock()
            self.past_eof.move_to_end((ino, inode.generation))

    def note_trimmed(self, ino: int, generation: int) -> None:
        """The file has no blocks past EOF any more."""
        self.past_eof.pop((ino, generation), None)
        inode = self.inodes.table.get(ino)
        if inode is not None and inode.generation == generation:
            inode.preallocated = False


def inode_of(plan: Plan, ino: int) -> Inode:
    """The record of a user-visible inode. FsError(ESTALE) for the filesystem's internal files."""
    if ino in (INODE_FILE_INO, ORPHAN_FILE_INO):
        raise FsError(errno.ESTALE)
    return plan.store.inodes.get(plan, ino)


def directory_of(plan: Plan, ino: int) -> Inode:
    """The record of a directory. ENOTDIR."""
    record = inode_of(plan, ino)
    if not stat.S_ISDIR(record.mode):
        raise FsError(errno.ENOTDIR)
    return record


def changed_directory(plan: Plan, ino: int) -> Inode:
    """The staged record of a directory that is about to gain or lose an entry. ENOENT when it has been deleted."""
    if not directory_of(plan, ino).nlink:
        raise FsError(errno.ENOENT)
    record = plan.store.inodes.modify(plan, ino)
    record.mtime = record.ctime = plan.now()
    plan.data_sync.add(ino)
    return record


def check_name(name: bytes) -> None:
    """ENAMETOOLONG, or EINVAL for an invalid name."""
    if len(name) > NAME_BYTES_MAX:
        raise FsError(errno.ENAMETOOLONG)
    if not is_name(name):
        raise FsError(errno.EINVAL)


def is_name(name: bytes) -> bool:
    """Whether the kernel accepts it as a file name."""
    return 0 < len(name) <= NAME_BYTES_MAX and b"/" not in name and b"\0" not in name
