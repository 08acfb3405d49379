"""Attributes: getattr, setattr, statfs, lazily updated access times."""

from __future__ import annotations

import errno
import stat
from typing import NamedTuple

from deferfs.errors import FsError
from deferfs.limits import NAME_BYTES_MAX
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.inode import InCoreInode
from deferfs.store.plan import Plan
from deferfs.volume import xattrs
from deferfs.volume.volume import Volume, inode_of

_RELATIME_NS = 24 * 3600 * 1_000_000_000
"""Age at which relatime updates an access time in any case, as in the kernel: one day."""
_ID_UNCHANGED = 0xFFFFFFFF
"""uid or gid of chown(2) that leaves the id alone: (uid_t)-1."""


class Statfs(NamedTuple):
    """statfs(2), in blocks and inodes. Blocks that queued inactivations will free are counted as free."""

    block_size: int
    blocks: int
    free: int
    available: int
    files: int
    files_free: int
    name_max: int


def getattr(plan: Plan, volume: Volume, ino: int) -> Inode:
    """The record. ESTALE when there is no such inode."""
    return inode_of(plan, ino)


def atime_ns(volume: Volume, record: Inode) -> int:
    """The access time in ns, including an update that is not on disk yet."""
    inode = _in_core(volume, record)
    owed = volume.inodes.debts.look(record.ino, record.generation) if inode is None else inode.lazy_atime
    return max(record.atime, owed) if owed else record.atime


def _in_core(volume: Volume, record: Inode) -> InCoreInode | None:
    """The in-core inode of this record. A record read before a wait may be stale: its inode freed, and the number
    reused; the generation shows it."""
    inode = volume.inodes.table.get(record.ino)
    return inode if inode is not None and inode.generation == record.generation else None


def accessed(volume: Volume, record: Inode) -> bool:
    """Update the access time after a read, in memory only; inactivation journals it. Whether it has changed.

    Under `relative` it changes only if it is not later than the last modification or change, or is a day old. A time
    in the future, because it was set or the clock was set back, stays, as it would on disk.
    """
    inode = _in_core(volume, record)
    policy = volume.atime
    if inode is None or policy == "none" or volume.store.read_only:
        return False
    if not volume.atime_of_directories and stat.S_ISDIR(record.mode):
        return False
    known = max(record.atime, inode.lazy_atime)
    now = volume.store.clock()
    if policy == "relative" and record.mtime < known and record.ctime < known and now - known <= _RELATIME_NS:
        return False
    if now <= known:
        return False
    inode.lazy_atime = now
    return True


def setattr(
    plan: Plan,
    volume: Volume,
    ino: int,
    *,
    mode: int | None = None,
    uid: int | None = None,
    gid: int | None = None,
    atime_ns: int | None = None,
    mtime_ns: int | None = None,
    ctime_ns: int | None = None,
) -> Inode:
    """Change attributes except the size (see `files.truncate`). `mode`: permission bits; times in ns. EOVERFLOW.

    `ctime_ns` comes from a kernel that keeps the times of regular files itself (writeback cache). Times alone may be
    late: the kernel writes them back without the inode's lock, so a truncate or touch that is made later may be served
    first, and is not sent again. Such times do not undo what is newer.
    """
    found = inode_of(plan, ino)
    if mode is None and uid is None and gid is None and atime_ns is None and ctime_ns is not None:
        if ctime_ns < found.ctime <= plan.now():  # a later ctime than now: the clock was set back
            ctime_ns = found.ctime
            mtime_ns = None if mtime_ns is None else max(mtime_ns, found.mtime)
        if ctime_ns == found.ctime and (mtime_ns is None or mtime_ns == found.mtime):
            # after each unlink and rename, the kernel repeats times that those have set already
            return found
    record = plan.store.inodes.modify(plan, ino)
    if mode is not None:
        record.mode = (record.mode & ~0o7777) | (mode & 0o7777)
        xattrs.follow_mode(plan, record)
    if uid is not None and uid != _ID_UNCHANGED:
        record.uid = uid
    if gid is not None and gid != _ID_UNCHANGED:
        record.gid = gid
    if atime_ns is not None:
        record.atime = _in_range(atime_ns)
        plan.on_apply.append(lambda: _forget_lazy(volume, ino))
    if mtime_ns is not None:
        record.mtime = _in_range(mtime_ns)
    record.ctime = _in_range(ctime_ns) if ctime_ns is not None else plan.now()
    if mode is not None or uid is not None or gid is not None:
        plan.data_sync.add(ino)
    return record


def _forget_lazy(volume: Volume, ino: int) -> None:
    inode = volume.inodes.table.get(ino)
    if inode is not None:
        inode.lazy_atime = 0
    else:
        volume.inodes.debts.void(ino)


def _in_range(time_ns: int) -> int:
    """Times are stored as signed 64-bit ns: 1677 to 2262."""
    if not -(1 << 63) <= time_ns < 1 << 63:
        raise FsError(errno.EOVERFLOW)
    return time_ns


def statfs(volume: Volume) -> Statfs:
    """Space and inodes, exact: blocks that queued inactivations will free are counted as free."""
    store = volume.store
    free, available = store.statfs_blocks()
    pending = volume.inodes.pending_blocks
    free = min(free + pending, store.superblock.blocks)
    available = min(available + pending, free)
    files_free = free * store.fmt.inodes_per_block
    used = store.inodes.used - (store.orphans.count - volume.inodes.held_orphans)
    return Statfs(
        store.fmt.block_size, store.superblock.blocks, free, available, used + files_free, files_free, NAME_BYTES_MAX
    )
