"""Entries of a directory, by name. Key order is readdir order, and the key is a stable cookie.

**Invariant:** the key of an entry lies in the window of its name, and is unique in the directory. Deleted entries leave
gaps in a window, so a lookup scans the whole window; an entry never moves.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import NamedTuple

from deferfs.errors import CorruptionError, FsError
from deferfs.limits import DIRECTORY_ENTRIES_MAX, DIRECTORY_WINDOW
from deferfs.ondisk.directory import ENTRY, keys_end, name_key, pack_entry, unpack_entry
from deferfs.ondisk.inode import FLAG_KEYS31, FORM_DIRECTORY_TREE, Inode
from deferfs.store.fork import directory_fork
from deferfs.store.plan import Plan


class DirectoryEntry(NamedTuple):
    """`key` is the readdir cookie, `file_type` the S_IFMT bits of the mode shifted right by 12."""

    key: int
    ino: int
    file_type: int
    name: bytes


def find(plan: Plan, directory: Inode, name: bytes) -> DirectoryEntry | None:
    """The entry called `name`, or None."""
    if directory.form != FORM_DIRECTORY_TREE:
        for key, value in directory.entries:
            if value[ENTRY.size :] == name:
                return DirectoryEntry(key, *unpack_entry(value))
        return None
    low = name_key(plan.store.fmt, name, directory.flags)
    for key, value in directory_fork(plan, directory).iterate(low):
        if key >= low + DIRECTORY_WINDOW:
            break
        if value[ENTRY.size :] == name:
            return DirectoryEntry(key, *unpack_entry(value))
    return None


def add(plan: Plan, directory: Inode, name: bytes, ino: int, file_type: int) -> None:
    """Add an entry; the caller knows that the name is not used. `directory` is the plan's own copy.

    ENOSPC when the directory has its maximum of entries, or the window of the name has no free key.
    """
    if directory.flags & FLAG_KEYS31 and directory.size >= DIRECTORY_ENTRIES_MAX:
        raise FsError(errno.ENOSPC, f"directory {directory.ino} is full")
    low = name_key(plan.store.fmt, name, directory.flags)
    fork = directory_fork(plan, directory)
    key = low
    for found, _ in fork.iterate(low):
        if found != key:
            break
        key += 1
    if key >= low + DIRECTORY_WINDOW:
        raise FsError(errno.ENOSPC, f"directory {directory.ino}: too many names with hashes near this one's")
    fork.insert(key, pack_entry(ino, file_type, name))
    directory.size += 1


def remove(plan: Plan, directory: Inode, entry: DirectoryEntry) -> None:
    """Remove an existing entry; `directory` is the plan's own copy."""
    directory_fork(plan, directory).delete(entry.key)
    directory.size -= 1


def retarget(plan: Plan, directory: Inode, entry: DirectoryEntry, ino: int, file_type: int) -> None:
    """Make an existing name refer to another inode."""
    directory_fork(plan, directory).replace(entry.key, pack_entry(ino, file_type, entry.name))


def entries(plan: Plan, directory: Inode, after: int) -> Iterator[DirectoryEntry]:
    """Entries with keys above `after`, in key order. CorruptionError for a key that cannot be a cookie."""
    end = keys_end(directory.flags)
    for key, value in directory_fork(plan, directory).iterate(after + 1):
        if key >= end:
            raise CorruptionError(f"directory {directory.ino}: an entry with the impossible key {key}")
        yield DirectoryEntry(key, *unpack_entry(value))
