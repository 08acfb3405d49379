"""Step 4: inodes that no directory names: orphans are released, the others get a name in lost+found."""

from __future__ import annotations

import stat
from array import array

from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.extents import held_by, users_inodes
from deferfs.check.repair.fields import blank
from deferfs.check.repair.names import Directory, count_names, store_entries
from deferfs.check.repair.table import free_inode
from deferfs.check.repair.trees import Entry
from deferfs.check.table import FREE, TYPE_DIRECTORY
from deferfs.ondisk.directory import name_key, pack_entry, unpack_entry
from deferfs.ondisk.inode import FORM_ENTRIES, ROOT_INO, Inode

LOST_FOUND = b"lost+found"
"""The directory for inodes without a name."""


def reconnect(repair: RepairContext) -> None:
    """Release the orphans, and put everything else that is in no directory into lost+found."""
    table, lost = repair.table, array("Q")
    for ino, slot in users_inodes(repair):
        named = table.found_in if table.types[slot] == TYPE_DIRECTORY else table.links
        if named[slot]:
            continue
        inode = repair.inode(ino)
        if not table.nlink[slot] and not (stat.S_ISDIR(inode.mode) and inode.size):
            _release(repair, inode, slot)
        else:
            lost.append(ino)
    if lost:
        _give_names(repair, lost)


def settle_records(repair: RepairContext) -> None:
    """Write link counts, parents and the absence of orphan slots into every record."""
    table = repair.table
    for ino, slot in table.inodes():
        if not table.types[slot] or (ino != ROOT_INO and ino < 8):
            continue
        inode = repair.inode(ino)
        is_directory = table.types[slot] == TYPE_DIRECTORY
        inode.nlink = 2 + table.subdirectories[slot] if is_directory else table.links[slot]
        if is_directory and ino != ROOT_INO:
            inode.parent = table.found_in[slot]
        inode.orphan_slot = 0
        repair.put(inode)


def _release(repair: RepairContext, inode: Inode, slot: int) -> None:
    repair.note(f"inode {inode.ino}: has no name any more; released", loses=False)
    for first, length in held_by(repair, inode):
        repair.release(first, length)
    repair.table.types[slot] = FREE
    repair.put(blank(inode.ino, inode.generation))


def _give_names(repair: RepairContext, lost: array[int]) -> None:
    table = repair.table
    home, path = _lost_found(repair)
    directory = Directory(repair, repair.inode(home))
    taken = {unpack_entry(value)[2] for _, value in directory.entries()}
    added: list[Entry] = []
    for ino in lost:
        name = _unused(b"#%d" % ino, taken)
        added.append((name_key(repair.fmt, name, directory.inode.flags), pack_entry(ino, table.type_of(ino), name)))
        table.found_in[table.slot(ino)] = home
        repair.note(f"inode {ino}: in no directory; now /{path.decode()}/{name.decode()}")
    added.sort()
    store_entries(repair, directory.inode, directory, directory.entries, added)
    count_names(repair, home, lost)


def _unused(name: bytes, taken: set[bytes]) -> bytes:
    found, number = name, 0
    while found in taken:
        number += 1
        found = b"%s.%d" % (name, number)
    return found


def _lost_found(repair: RepairContext) -> tuple[int, bytes]:
    """The inode and the name of lost+found in the root directory, which is made if need be."""
    table = repair.table
    root = Directory(repair, repair.inode(ROOT_INO))
    taken: set[bytes] = set()
    for _, value in root.entries():
        ino, _, name = unpack_entry(value)
        if name == LOST_FOUND and table.type_of(ino) == TYPE_DIRECTORY:
            return ino, name
        taken.add(name)
    inode = free_inode(repair)
    inode.mode, inode.parent = stat.S_IFDIR | 0o700, ROOT_INO
    inode.atime = inode.mtime = inode.ctime = inode.crtime = repair.now_ns
    inode.nlink, inode.flags = 2, repair.superblock.directory_flags
    inode.set_entries(FORM_ENTRIES, ())
    slot = table.slot(inode.ino)
    table.enter(slot, inode)
    table.found_in[slot] = ROOT_INO
    repair.put(inode)
    name = _unused(LOST_FOUND, taken)
    entry = (name_key(repair.fmt, name, root.inode.flags), pack_entry(inode.ino, TYPE_DIRECTORY, name))
    store_entries(repair, root.inode, root, root.entries, [entry])
    count_names(repair, ROOT_INO, array("Q", [inode.ino]))
    return inode.ino, name
