"""Step 3: every entry of every directory. Which directory holds a directory is decided first: it has one name."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import chain

from deferfs.check.nearby import NearbyNames
from deferfs.check.repair.attributes import chain_blocks
from deferfs.check.repair.context import NoFreeBlockError, RepairContext
from deferfs.check.repair.filing import Filing, shown
from deferfs.check.repair.trees import Entry, Remains, build
from deferfs.check.table import FREE, TYPE_DIRECTORY
from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_ENTRIES_MAX, DIRECTORY_WINDOW, NAME_BYTES_MAX
from deferfs.ondisk.directory import name_key, pack_entry, unpack_entry
from deferfs.ondisk.inode import FIRST_INO, FLAG_KEYS31, FORM_DIRECTORY_TREE, FORM_ENTRIES, ROOT_INO, Inode
from deferfs.ondisk.node import DirectoryNode

_INLINE_ENTRY_BYTES = 10
"""Bytes of an inline directory entry besides its value."""
_WALKING, _KNOWN = 1, 2


def mend_directories(repair: RepairContext) -> None:
    """Take out what no directory may hold, and count the names of every inode in the table."""
    _find_parents(repair)
    _cut_cycles(repair)
    for ino, slot in repair.table.inodes():
        if repair.table.types[slot] == TYPE_DIRECTORY:
            _Mender(repair, repair.inode(ino)).mend()
    if repair.narrowed:
        many = "directory has" if repair.narrowed == 1 else "directories have"
        repair.note(f"{repair.narrowed} {many} readdir offsets of 31 bits now", loses=False)


def possible_name(name: bytes) -> bool:
    """Whether a file may have this name."""
    return 0 < len(name) <= NAME_BYTES_MAX and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


class Directory:
    """What is left of one directory: its entries, and the nodes they are in."""

    def __init__(self, repair: RepairContext, inode: Inode) -> None:
        self.inode = inode
        self.remains = Remains(repair, DirectoryNode, inode.ino, inode.root)

    def entries(self) -> Iterator[Entry]:
        """The entries as found: neither sorted nor checked."""
        if self.inode.form == FORM_DIRECTORY_TREE:
            return self.remains.entries()
        return iter(self.inode.entries)


def _find_parents(repair: RepairContext) -> None:
    """Note in `found_in` the parent of each directory: the one that its record names, if that has an entry for it, else
    the first directory that has one."""
    table = repair.table
    for ino, slot in table.inodes():
        if table.types[slot] != TYPE_DIRECTORY:
            continue
        for _, value in Directory(repair, repair.inode(ino)).entries():
            try:
                target, _, name = unpack_entry(value)
            except CorruptionError:
                continue
            if target < FIRST_INO or table.type_of(target) != TYPE_DIRECTORY or not possible_name(name):
                continue
            at = table.slot(target)
            if not table.found_in[at] or table.parent[at] == ino:
                table.found_in[at] = ino


def _cut_cycles(repair: RepairContext) -> None:
    """Break cycles: take a directory that is its own ancestor out of its parent. A later step finds it to be lost."""
    table = repair.table
    states = bytearray(len(table.types))
    states[table.slot(ROOT_INO)] = _KNOWN
    for _, slot in table.inodes():
        path: list[int] = []
        at = slot
        while not states[at]:
            states[at] = _WALKING
            path.append(at)
            if not table.found_in[at]:
                break
            at = table.slot(table.found_in[at])
        if states[at] == _WALKING and table.found_in[at]:
            table.found_in[at] = 0
        for below in path:
            states[below] = _KNOWN


class _Mender:
    """One directory. `dropped` are the positions of entries that do not stay where they are, `displaced` those that
    do stay, under another key, with the lowest key that they may have."""

    def __init__(self, repair: RepairContext, inode: Inode) -> None:
        self.repair = repair
        self.inode = inode
        self.dropped: set[int] = set()
        self.displaced: list[Entry] = []
        self.targets = array("Q")
        self.subdirectories: set[int] = set()
        self.narrowed = False
        self.last_key = -1
        self.names = NearbyNames()

    def mend(self) -> None:
        repair, inode = self.repair, self.inode
        directory = Directory(repair, inode)
        if repair.narrow and not inode.flags & FLAG_KEYS31:
            self._narrow()
        for position, (key, value) in enumerate(directory.entries()):
            self._judge(position, key, value)
        if self.dropped or self.displaced or directory.remains.damaged:
            if not self.narrowed:
                repair.note(f"directory {inode.ino}: rebuilt")
            self.displaced.sort()
            self.targets = store_entries(repair, inode, directory, lambda: self._kept(directory), self.displaced)
        else:
            inode.size = len(self.targets)
            inode.blocks = len(directory.remains.nodes) + len(chain_blocks(repair, inode))
            repair.put(inode)
        count_names(repair, inode.ino, self.targets)

    def _narrow(self) -> None:
        """From now on its names have 31-bit hashes: the keys that its entries have are wrong."""
        inode = self.inode
        if inode.size > DIRECTORY_ENTRIES_MAX:
            self.repair.note(f"directory {inode.ino}: too many entries for 31-bit keys; left as it is", loses=False)
            return
        inode.flags |= FLAG_KEYS31
        self.narrowed = True
        self.repair.narrowed += 1

    def _kept(self, directory: Directory) -> Iterator[Entry]:
        if self.narrowed:
            return iter(())
        return (entry for at, entry in enumerate(directory.entries()) if at not in self.dropped)

    def _judge(self, position: int, key: int, value: bytes) -> None:
        try:
            ino, file_type, name = unpack_entry(value)
        except CorruptionError:
            self._drop(position, f"an entry of {len(value)} bytes removed")
            return
        reason = self._why_not(ino, name)
        if reason:
            self._drop(position, f"{shown(name)} removed: {reason}")
            return
        low = name_key(self.repair.fmt, name, self.inode.flags)
        found = self.repair.table.type_of(ino)
        self.targets.append(ino)
        if not self.narrowed:  # where nothing stays under its key
            if low <= key < low + DIRECTORY_WINDOW and key > self.last_key and found == file_type:
                self.last_key = key
                if self.names.add(key, name):
                    return
            self.dropped.add(position)
        self.displaced.append((low, pack_entry(ino, found, name)))

    def _drop(self, position: int, text: str) -> None:
        self.dropped.add(position)
        self.repair.note(f"directory {self.inode.ino}: {text}")

    def _why_not(self, ino: int, name: bytes) -> str:
        """Why the entry cannot stay; nothing when it can."""
        table = self.repair.table
        if not possible_name(name):
            return "a name that no file may have"
        found = table.type_of(ino)
        if found == FREE or ino < FIRST_INO:
            return f"inode {ino} is not in use" if ino >= FIRST_INO else f"inode {ino} is reserved"
        if found == TYPE_DIRECTORY:
            if table.found_in[table.slot(ino)] != self.inode.ino or ino in self.subdirectories:
                return f"directory {ino} has another name"
            self.subdirectories.add(ino)
        return ""


def store_entries(
    repair: RepairContext, inode: Inode, old: Directory, kept: Callable[[], Iterator[Entry]], others: list[Entry]
) -> array[int]:
    """Make the directory hold the entries `kept()`, which may be read from `old` meanwhile, and `others` beside them,
    as `Filing` does. Returns the inodes named. NoFreeBlockError."""
    targets = array("Q")
    wanted = Filing(repair, inode.ino, targets).entries(kept(), others)
    head: list[Entry] = []
    bytes_left, nodes = inode.inline_capacity(), 0
    while bytes_left >= 0 and (entry := next(wanted, None)) is not None:
        head.append(entry)
        bytes_left -= _INLINE_ENTRY_BYTES + len(entry[1])
    if bytes_left >= 0:
        old.remains.release()
        inode.set_entries(FORM_ENTRIES, tuple(head))
    else:
        try:
            root, nodes = build(repair, DirectoryNode, inode.ino, chain(head, wanted))
            old.remains.release()
        except NoFreeBlockError:
            # the blocks of the old nodes can take the new ones, once everything in them is in memory
            del targets[:]
            everything = list(Filing(repair, inode.ino, targets).entries(kept(), others))
            old.remains.release()
            root, nodes = build(repair, DirectoryNode, inode.ino, everything)
        inode.set_tree(FORM_DIRECTORY_TREE, root)
    inode.size = len(targets)
    inode.blocks = nodes + len(chain_blocks(repair, inode))
    repair.put(inode)
    return targets


def count_names(repair: RepairContext, ino: int, targets: array[int]) -> None:
    """Count the names that directory `ino` gives."""
    table = repair.table
    own = table.slot(ino)
    for target in targets:
        slot = table.slot(target)
        table.links[slot] += 1
        if table.types[slot] == TYPE_DIRECTORY:
            table.subdirectories[own] += 1
