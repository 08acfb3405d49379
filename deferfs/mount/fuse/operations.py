"""What FUSE requests ask of the core: operations of a plan that count the lookups they give to the kernel.

**Invariant:** a lookup is counted in the very moment the operation is applied (`plan.on_apply`). Were it counted
after an await, another request could delete the inode in between, and its inactivation begin.
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
"""Entries read ahead of the kernel's buffer; one of 4 KiB holds some 25, one of 32 KiB some 200."""

_DOTS: Final = (b".", b"..")
_PRIVILEGES: Final = stat.S_ISUID | stat.S_ISGID

Accept = Callable[[DirectoryEntry, Inode | None], bool]
"""Offers an entry to the kernel, without its inode when that cannot be used; False when its buffer is full."""


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

    Returns the cookie to go on from, or None when the directory has ended (`accept` is called on apply, so whether
    the kernel's buffer is full is known only to the caller). The kernel counts no lookup for `.` and `..`.

    A name whose inode cannot be used is offered without one, as other filesystems list it: they look at no inode to
    list a directory. A name that the kernel would refuse, and the whole reply with it, is left out. `note` is told of
    both. What comes before an entry that has no place in the order is offered first; CorruptionError when nothing does.
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
                volume.inodes.listed_alone(entry.ino)
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
    """The inode that an entry names; None, and what is wrong is added to `damage`, when it cannot be used."""
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
    """`attributes.setattr` for a change that takes privileges from the mode, whoever makes it: in one transaction."""
    drop_privileges(plan, volume, ino, caller)
    if changes:
        return attributes.setattr(plan, volume, ino, **changes)
    return inode_of(plan, ino)


def truncate(plan: Plan, volume: Volume, ino: int, length: int, caller: Caller | None) -> bool:
    """`files.truncate`, which takes privileges from the mode if `caller` (None: the filesystem itself) may not leave
    them. True when done.
    """
    if caller is not None and inode_of(plan, ino).mode & _PRIVILEGES and not caller.may(CAP_FSETID):
        drop_privileges(plan, volume, ino, caller)
    return files.truncate(plan, volume, ino, length)


def drop_privileges(plan: Plan, volume: Volume, ino: int, caller: Caller) -> None:
    """Take from the mode what nobody vouches for once `caller` has changed the owner or the content: the set-user-id
    bit, the set-group-id bit of a program, and that of any other file that is not of his groups.

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
