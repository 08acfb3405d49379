"""Names: lookup, create, link, unlink, rename, readdir."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator

from deferfs.errors import CorruptionError, FsError
from deferfs.limits import LINKS_MAX
from deferfs.ondisk.directory import COOKIE_DOT, COOKIE_DOTDOT
from deferfs.ondisk.inode import FORM_ENTRIES, FORM_EXTENTS, ROOT_INO, Inode
from deferfs.store import directories, extents
from deferfs.store.directories import DirectoryEntry
from deferfs.store.extents import Mapping
from deferfs.store.plan import Plan
from deferfs.volume import xattrs
from deferfs.volume.new_inode import SUPERUSER, Credentials, NewInode
from deferfs.volume.volume import Volume, changed_directory, check_name, directory_of, inode_of

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
"""Flags of renameat2(2)."""
_WHITEOUT_MODE = stat.S_IFCHR
"""A whiteout of overlayfs is a character device 0:0 without permissions."""


def lookup(plan: Plan, volume: Volume, parent: int, name: bytes) -> Inode:
    """The inode called `name`. ENOENT, ENOTDIR, ENAMETOOLONG."""
    found = find(plan, volume, parent, name)
    if found is None:
        raise FsError(errno.ENOENT)
    return found


def find(plan: Plan, volume: Volume, parent: int, name: bytes) -> Inode | None:
    """The inode called `name`; None when there is none, which is too frequent to raise an exception for. ENOTDIR,
    ENAMETOOLONG.
    """
    directory = directory_of(plan, parent)
    if name == b".":
        return directory
    if name == b"..":
        return inode_of(plan, directory.parent)
    check_name(name)
    entry = directories.find(plan, directory, name)
    return None if entry is None else inode_of(plan, entry.ino)


def readdir(plan: Plan, volume: Volume, ino: int, after: int) -> Iterator[DirectoryEntry]:
    """Entries with cookies above `after`, `.` and `..` first, in cookie order; none for a deleted directory."""
    directory = directory_of(plan, ino)
    if not directory.nlink:
        return
    if after < COOKIE_DOT:
        yield DirectoryEntry(COOKIE_DOT, ino, stat.S_IFDIR >> 12, b".")
    if after < COOKIE_DOTDOT:
        yield DirectoryEntry(COOKIE_DOTDOT, directory.parent, stat.S_IFDIR >> 12, b"..")
    yield from directories.entries(plan, directory, max(after, COOKIE_DOTDOT))


def create(
    plan: Plan,
    volume: Volume,
    parent: int,
    name: bytes,
    new: NewInode,
) -> Inode:
    """Create an inode called `name`. EEXIST, ENOSPC, EMLINK.

    The umask applies unless the directory has a default ACL.
    """
    check_name(name)
    if directories.find(plan, directory_of(plan, parent), name) is not None:
        raise FsError(errno.EEXIST)
    directory = changed_directory(plan, parent)
    mode, gid = new.mode, new.maker.gid
    is_directory = stat.S_ISDIR(mode)
    if directory.mode & stat.S_ISGID:
        gid = directory.gid
        if is_directory:
            mode |= stat.S_ISGID
    record = _new_inode(plan, mode, new.maker.uid, gid, new.rdev)
    if is_directory:
        if directory.nlink >= LINKS_MAX:
            raise FsError(errno.EMLINK)
        record.nlink = 2
        record.parent = parent
        record.flags = plan.store.superblock.directory_flags
        record.set_entries(FORM_ENTRIES, ())
        directory.nlink += 1
    xattrs.inherit(plan, directory, record, new.maker.umask)
    directories.add(plan, directory, name, record.ino, mode >> 12)
    return record


def _new_inode(plan: Plan, mode: int, uid: int, gid: int, rdev: int) -> Inode:
    """A new record with one link, staged."""
    record = plan.store.inodes.allocate(plan, mode, plan.store.entropy())
    record.uid, record.gid, record.nlink, record.rdev = uid, gid, 1, rdev
    record.atime = record.mtime = record.ctime = record.crtime = plan.now()
    return record


def symlink(
    plan: Plan, volume: Volume, parent: int, name: bytes, target: bytes, maker: Credentials = SUPERUSER
) -> Inode:
    """Create a symbolic link; a target too long for the inode is written to blocks before the commit."""
    record = create(plan, volume, parent, name, NewInode(stat.S_IFLNK | 0o777, Credentials(maker.uid, maker.gid)))
    record.size = len(target)
    if len(target) <= record.inline_capacity():
        record.set_inline(target)
        return record
    size = plan.store.fmt.block_size
    record.set_entries(FORM_EXTENTS, ())
    at, count = 0, -(-len(target) // size)
    while at < count:
        first, length = plan.allocate(0, count - at)
        extents.insert(plan, record, Mapping(at, first, length, False))
        piece = target[at * size : (at + length) * size]
        plan.data_writes.append((first * size, piece.ljust(length * size, b"\0")))
        at += length
    return record


def link(plan: Plan, volume: Volume, ino: int, parent: int, name: bytes) -> Inode:
    """Add a name to a file. EPERM for directories, ENOENT for a deleted file, EMLINK."""
    check_name(name)
    found = inode_of(plan, ino)
    if stat.S_ISDIR(found.mode):
        raise FsError(errno.EPERM)
    if not found.nlink:
        raise FsError(errno.ENOENT)
    if found.nlink >= LINKS_MAX:
        raise FsError(errno.EMLINK)
    if directories.find(plan, directory_of(plan, parent), name) is not None:
        raise FsError(errno.EEXIST)
    directory = changed_directory(plan, parent)
    record = plan.store.inodes.modify(plan, ino)
    record.nlink += 1
    record.ctime = plan.now()
    plan.data_sync.add(ino)
    directories.add(plan, directory, name, ino, record.mode >> 12)
    return record


def _existing(plan: Plan, parent: int, name: bytes) -> DirectoryEntry:
    check_name(name)
    entry = directories.find(plan, directory_of(plan, parent), name)
    if entry is None:
        raise FsError(errno.ENOENT)
    return entry


def unlink(plan: Plan, volume: Volume, parent: int, name: bytes) -> None:
    """Remove a name of a non-directory. With its last name gone the inode becomes an orphan. EISDIR."""
    entry = _existing(plan, parent, name)
    if stat.S_ISDIR(entry.file_type << 12):
        raise FsError(errno.EISDIR)
    plan.reserve = True
    directories.remove(plan, changed_directory(plan, parent), entry)
    _drop_link(plan, volume, entry.ino, parent)


def rmdir(plan: Plan, volume: Volume, parent: int, name: bytes) -> None:
    """Remove an empty directory. ENOTDIR, ENOTEMPTY."""
    entry = _existing(plan, parent, name)
    if directory_of(plan, entry.ino).size:
        raise FsError(errno.ENOTEMPTY)
    plan.reserve = True
    directory = changed_directory(plan, parent)
    directories.remove(plan, directory, entry)
    directory.nlink -= 1
    _drop_link(plan, volume, entry.ino, parent)


def _drop_link(plan: Plan, volume: Volume, ino: int, parent: int) -> None:
    """Drop a link from directory `parent`; with the last one the inode enters the orphan table, in one transaction."""
    record = plan.store.inodes.modify(plan, ino)
    record.ctime = plan.now()
    plan.data_sync.add(ino)
    record.nlink = 0 if stat.S_ISDIR(record.mode) else record.nlink - 1
    if record.nlink:
        return
    plan.store.orphans.add(plan, record)
    generation, blocks, slot = record.generation, record.blocks, record.orphan_slot - 1
    held = extents.count_estimate(plan, record)

    def orphaned() -> None:
        due = volume.inodes.orphaned(ino, generation, blocks, held, slot=slot, parent=parent)
        if due is not None:
            volume.due.append(due)

    plan.on_apply.append(orphaned)


def rename(
    plan: Plan,
    volume: Volume,
    parent: int,
    name: bytes,
    new_parent: int,
    new_name: bytes,
    flags: int = 0,
    maker: Credentials = SUPERUSER,
) -> None:
    """rename(2), and renameat2(2) with NOREPLACE, EXCHANGE and WHITEOUT (the whiteout belongs to `maker`).

    Atomic: both names change in one transaction.
    """
    check_name(new_name)
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT):
        raise FsError(errno.EINVAL)
    if flags & RENAME_EXCHANGE and flags != RENAME_EXCHANGE:
        raise FsError(errno.EINVAL)
    source = _existing(plan, parent, name)
    destination = directory_of(plan, new_parent)
    if not destination.nlink:
        raise FsError(errno.ENOENT)
    target = directories.find(plan, destination, new_name)
    if flags & RENAME_NOREPLACE and target is not None:
        raise FsError(errno.EEXIST)
    if flags & RENAME_EXCHANGE and target is None:
        raise FsError(errno.ENOENT)
    if target is not None and target.ino == source.ino:
        return
    _check_ancestry(plan, source, new_parent)
    if flags & RENAME_EXCHANGE:
        assert target is not None
        _check_ancestry(plan, target, parent)
        _exchange(plan, parent, source, new_parent, target)
        return
    old = changed_directory(plan, parent)
    new = changed_directory(plan, new_parent)
    moves_directory = stat.S_ISDIR(source.file_type << 12)
    whiteout = _new_inode(plan, _WHITEOUT_MODE, maker.uid, maker.gid, 0) if flags & RENAME_WHITEOUT else None
    if target is None:
        if moves_directory and parent != new_parent and new.nlink >= LINKS_MAX:
            raise FsError(errno.EMLINK)
        _leave(plan, old, source, whiteout)
        directories.add(plan, new, new_name, source.ino, source.file_type)
    else:
        _check_replace(plan, source, target)
        plan.reserve = True
        directories.retarget(plan, new, target, source.ino, source.file_type)
        _leave(plan, old, source, whiteout)
        if moves_directory:
            new.nlink -= 1
        _drop_link(plan, volume, target.ino, new_parent)
    record = plan.store.inodes.modify(plan, source.ino)
    record.ctime = plan.now()
    plan.data_sync.add(source.ino)
    if moves_directory:
        old.nlink -= 1
        new.nlink += 1
        record.parent = new_parent


def _leave(plan: Plan, directory: Inode, entry: DirectoryEntry, whiteout: Inode | None) -> None:
    """Remove the old name, or point it to the whiteout."""
    if whiteout is None:
        directories.remove(plan, directory, entry)
    else:
        directories.retarget(plan, directory, entry, whiteout.ino, whiteout.mode >> 12)


def _is_directory(entry: DirectoryEntry) -> bool:
    return stat.S_ISDIR(entry.file_type << 12)


def _check_replace(plan: Plan, source: DirectoryEntry, target: DirectoryEntry) -> None:
    if stat.S_ISDIR(target.file_type << 12):
        if not stat.S_ISDIR(source.file_type << 12):
            raise FsError(errno.EISDIR)
        if directory_of(plan, target.ino).size:
            raise FsError(errno.ENOTEMPTY)
    elif stat.S_ISDIR(source.file_type << 12):
        raise FsError(errno.ENOTDIR)


def _check_ancestry(plan: Plan, moved: DirectoryEntry, into: int) -> None:
    """EINVAL when a directory would become its own ancestor."""
    if not stat.S_ISDIR(moved.file_type << 12):
        return
    at = into
    above: set[int] = set()
    while at != ROOT_INO:
        if at == moved.ino:
            raise FsError(errno.EINVAL)
        if at in above:
            raise CorruptionError(f"directory {at} is its own ancestor")
        above.add(at)
        at = directory_of(plan, at).parent
    if moved.ino == ROOT_INO:
        raise FsError(errno.EBUSY)


def _exchange(plan: Plan, parent: int, source: DirectoryEntry, new_parent: int, target: DirectoryEntry) -> None:
    old = changed_directory(plan, parent)
    new = changed_directory(plan, new_parent)
    for entry, other, joined in ((source, target, new), (target, source, old)):
        gains = old is not new and _is_directory(entry) and not _is_directory(other)
        if gains and joined.nlink >= LINKS_MAX:
            raise FsError(errno.EMLINK)
    directories.retarget(plan, old, source, target.ino, target.file_type)
    directories.retarget(plan, new, target, source.ino, source.file_type)
    for entry, left, joined in ((source, old, new), (target, new, old)):
        record = plan.store.inodes.modify(plan, entry.ino)
        record.ctime = plan.now()
        plan.data_sync.add(entry.ino)
        if stat.S_ISDIR(record.mode):
            record.parent = joined.ino
            left.nlink -= 1
            joined.nlink += 1
