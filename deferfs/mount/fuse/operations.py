"""Operations of the core as FUSE requests need them: they count the lookups returned to the kernel.

**Invariant:** a lookup is counted when the operation is applied (`plan.on_apply`). If it were counted after an await,
another request could delete the inode in between, and its inactivation could begin.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from typing import Final

from deferfs.errors import CorruptionError, FsError, without_traceback
from deferfs.mount.fuse.callers import CAP_FSETID, Caller
from deferfs.ondisk.inode import Inode
from deferfs.store.directories import DirectoryEntry
from deferfs.store.needs import NeedBlocks
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files, namespace
from deferfs.volume.new_inode import Credentials, NewInode
from deferfs.volume.volume import Volume, inode_of, is_name

READDIR_BATCH: Final = 64
"""Entries read ahead of the kernel's buffer: 4 KiB hold about 25 of them, 32 KiB about 200."""

_DOTS: Final = (b".", b"..")
_PRIVILEGES: Final = stat.S_ISUID | stat.S_ISGID

Accept = Callable[[DirectoryEntry, Inode | None], bool]
"""Adds an entry to the reply, without its inode when that cannot be used; False when the buffer is full."""


def _counted(plan: Plan, volume: Volume, record: Inode) -> Inode:
    plan.on_apply.append(lambda: volume.lookup_count(record))
    return record


def lookup(plan: Plan, volume: Volume, parent: int, name: bytes) -> Inode | None:
    """`namespace.find`; `.` works for a file as well, which is how NFS handles are resolved: ESTALE once deleted."""
    found = inode_of(plan, parent) if name == b"." else namespace.find(plan, volume, parent, name)
    if found is None:
        return None
    if name == b"." and not found.nlink:
        raise FsError(errno.ESTALE)
    return _counted(plan, volume, found)


def create(plan: Plan, volume: Volume, parent: int, name: bytes, new: NewInode) -> Inode:
    """`namespace.create`."""
    return _counted(plan, volume, namespace.create(plan, volume, parent, name, new))


def symlink(plan: Plan, volume: Volume, parent: int, name: bytes, target: bytes, maker: Credentials) -> Inode:
    """`namespace.symlink`."""
    return _counted(plan, volume, namespace.symlink(plan, volume, parent, name, target, maker))


def link(plan: Plan, volume: Volume, ino: int, parent: int, name: bytes) -> Inode:
    """`namespace.link`."""
    return _counted(plan, volume, namespace.link(plan, volume, ino, parent, name))


def readdir(
    plan: Plan, volume: Volume, ino: int, after: int, accept: Accept, note: Callable[[CorruptionError], None]
) -> int | None:
    """Offer the next entries, with their inodes; count a lookup for each that is accepted.

    Returns the cookie to continue from, or None at the end of the directory (`accept` is called in `apply`, so only the
    caller knows whether the kernel's buffer is full). The kernel counts no lookup for `.` and `..`.

    An entry whose inode cannot be used is offered without it, as other filesystems list it: they read no inodes to list
    a directory. A name for which the kernel would reject the whole reply is skipped. `note` is called for both. Entries
    before one that is out of order are offered first; CorruptionError when there are none.
    """
    batch: list[tuple[DirectoryEntry, Inode | None]] = []
    damage: list[CorruptionError] = []
    missing: list[tuple[int, type]] = []
    ended = True
    try:
        for entry in namespace.readdir(plan, volume, ino, after):
            if not is_name(entry.name):
                damage.append(CorruptionError(f"directory {ino}: an entry has a name that no file may have"))
                continue
            if len(batch) + len(missing) >= READDIR_BATCH:
                ended = False
                break
            try:
                batch.append((entry, _named_inode(plan, ino, entry, damage)))
            except NeedBlocks as need:
                missing.extend(need.blocks)
    except CorruptionError:
        if not batch and not missing:
            raise
        ended = False
    if missing:
        raise NeedBlocks(missing)

    def offer() -> None:
        for error in damage:
            note(error)
        for entry, record in batch:
            if not accept(entry, record):
                return
            if entry.name in _DOTS:
                continue
            if record is None:
                volume.inodes.listed_without_inode(entry.ino)
            else:
                volume.lookup_count(record)

    plan.on_apply.append(offer)
    if not after:
        directory = inode_of(plan, ino)

        def read() -> None:
            attributes.accessed(volume, directory)

        plan.on_apply.append(read)
    return None if ended else batch[-1][0].key


def _named_inode(plan: Plan, directory: int, entry: DirectoryEntry, damage: list[CorruptionError]) -> Inode | None:
    """The inode that an entry names; None, with the reason added to `damage`, when it cannot be used."""
    try:
        return inode_of(plan, entry.ino)
    except CorruptionError as unusable:
        damage.append(without_traceback(unusable))
    except FsError as error:
        if error.errno != errno.ESTALE:
            raise
        damage.append(CorruptionError(f"directory {directory}: an entry names inode {entry.ino}, which is not in use"))
    return None


def setattr(plan: Plan, volume: Volume, ino: int, changes: dict[str, int], caller: Caller) -> Inode:
    """`attributes.setattr`, and, in the same transaction, the removal of privileges from the mode."""
    drop_privileges(plan, volume, ino, caller)
    if changes:
        return attributes.setattr(plan, volume, ino, **changes)
    return inode_of(plan, ino)


def truncate(plan: Plan, volume: Volume, ino: int, length: int, caller: Caller) -> bool:
    """`files.truncate`, and the removal of privileges from the mode unless `caller` may leave them. True when done."""
    if inode_of(plan, ino).mode & _PRIVILEGES and not caller.may(CAP_FSETID):
        drop_privileges(plan, volume, ino, caller)
    return files.truncate(plan, volume, ino, length)


def drop_privileges(plan: Plan, volume: Volume, ino: int, caller: Caller) -> None:
    """After `caller` has changed owner or content: clear the set-user-id bit, the set-group-id bit of an executable,
    and that of any other file unless the caller is in its group, or is privileged.

    The kernel leaves that to the filesystem (FUSE_HANDLE_KILLPRIV, which libfuse always negotiates).
    """
    record = inode_of(plan, ino)
    if stat.S_ISDIR(record.mode) or not record.mode & _PRIVILEGES:
        return
    mode = record.mode & ~stat.S_ISUID
    if mode & stat.S_IXGRP or not caller.vouches_for(record.gid):
        mode &= ~stat.S_ISGID
    if mode != record.mode:
        attributes.setattr(plan, volume, ino, mode=mode)
