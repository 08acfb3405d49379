"""Pass 5: every entry of every directory. The table gets the links that they give to inodes."""

from __future__ import annotations

from collections.abc import Iterator

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.inodefile import read_record
from deferfs.check.nearby import NearbyNames
from deferfs.check.records import report_blocks
from deferfs.check.table import DAMAGED, FREE, TYPE_DIRECTORY, InodeTable
from deferfs.check.trees import Tree
from deferfs.errors import CorruptionError
from deferfs.limits import DIRECTORY_WINDOW, NAME_BYTES_MAX
from deferfs.ondisk.directory import name_key, unpack_entry
from deferfs.ondisk.inode import FIRST_INO, FLAG_KEYS31, FORM_DIRECTORY_TREE, FORM_ENTRIES, Inode
from deferfs.ondisk.node import DirectoryNode
from deferfs.printable import printable


def check_directories(context: Context, table: InodeTable) -> int:
    """Read all directories. Returns how many of them have 55-bit hashes."""
    directories = [ino for ino, slot in table.inodes() if table.types[slot] == TYPE_DIRECTORY]
    wide = 0
    for ino in context.steps("directories", directories):
        inode = _read(context, table, ino)
        if inode is not None:
            wide += not inode.flags & FLAG_KEYS31
            _DirectoryCheck(context, table, inode).check()
    return wide


def _read(context: Context, table: InodeTable, ino: int) -> Inode | None:
    try:
        return read_record(context, *table.locate(ino))[0]
    except CorruptionError:
        return None  # pass 4 found it sound: the device has failed since, and the reader has reported that


class _DirectoryCheck:
    """One directory."""

    def __init__(self, context: Context, table: InodeTable, inode: Inode) -> None:
        self.context = context
        self.table = table
        self.inode = inode
        self.entries = 0
        self.complete = True
        self.last_key = -1
        self.names = NearbyNames()

    def check(self) -> None:
        for key, value in self._values():
            self.entries += 1
            self._check_entry(key, value)
        inode = self.inode
        if not self.complete:
            self.context.complete = False
        elif inode.size != self.entries:
            text = f"directory {inode.ino}: counts {inode.size} entries, has {self.entries}"
            self.context.findings.add(catalogue.DIRECTORY_SIZE, text, ino=inode.ino)
        if self.entries and not inode.nlink:
            text = f"directory {inode.ino}: removed, but has {self.entries} entries"
            self.context.findings.add(catalogue.DIRECTORY_REMOVED, text, ino=inode.ino)

    def _values(self) -> Iterator[tuple[int, bytes]]:
        inode = self.inode
        if inode.form == FORM_ENTRIES:
            yield from inode.entries
        elif inode.form == FORM_DIRECTORY_TREE:
            tree = Tree(self.context, DirectoryNode, inode.ino, inode.root)
            for leaf in tree.leaves():
                yield from zip(leaf.keys, leaf.values, strict=True)
            self.complete = tree.complete
            held = self.table.held.get(inode.ino, -1)
            if tree.complete and held >= 0 and inode.blocks != held + tree.blocks:
                report_blocks(self.context, inode, held + tree.blocks)

    def _report(self, kind: catalogue.Kind, name: bytes, text: str, **where: int) -> None:
        ino = self.inode.ino
        message = f"directory {ino}: '{printable(name)}': {text}"
        self.context.findings.add(kind, message, directory=ino, **where)

    def _check_entry(self, key: int, value: bytes) -> None:
        try:
            ino, file_type, name = unpack_entry(value)
        except CorruptionError:
            self._report(catalogue.ENTRY_DAMAGED, b"", f"entry of {len(value)} bytes", key=key)
            return
        if not 0 < len(name) <= NAME_BYTES_MAX or b"/" in name or b"\0" in name or name in (b".", b".."):
            self._report(catalogue.ENTRY_NAME, name, "a name that no file may have", ino=ino)
        self._check_key(key, name)
        if 0 < ino < FIRST_INO:
            self._report(catalogue.ENTRY_RESERVED, name, f"names reserved inode {ino}", ino=ino)
        else:
            self._check_target(ino, file_type, name)

    def _check_key(self, key: int, name: bytes) -> None:
        if key <= self.last_key:
            self._report(catalogue.ENTRY_KEY, name, f"key {key} after {self.last_key}", key=key)
        self.last_key = key
        low = name_key(self.context.fmt, name, self.inode.flags)
        if not low <= key < low + DIRECTORY_WINDOW:
            self._report(catalogue.ENTRY_KEY, name, f"key {key}, its hash is {low}", key=key)
        if not self.names.add(key, name):
            self._report(catalogue.ENTRY_DUPLICATE, name, "the name is there twice", key=key)

    def _check_target(self, ino: int, file_type: int, name: bytes) -> None:
        table = self.table
        slot = table.slot(ino)
        found = FREE if slot < 0 else table.types[slot]
        if found == DAMAGED:
            return
        if found == FREE:
            self._report(catalogue.ENTRY_DEAD, name, f"inode {ino} is not in use", ino=ino)
            return
        table.links[slot] += 1
        if found != file_type:
            text = f"type {file_type}, inode {ino} has {found}"
            self._report(catalogue.ENTRY_TYPE, name, text, ino=ino)
        if found == TYPE_DIRECTORY:
            self._enter_directory(ino, slot, name)

    def _enter_directory(self, ino: int, slot: int, name: bytes) -> None:
        table, own = self.table, self.inode.ino
        if table.found_in[slot]:
            text = f"directory {ino} is also in directory {table.found_in[slot]}"
            self._report(catalogue.DIRECTORY_LINKED_TWICE, name, text, ino=ino)
        else:
            table.found_in[slot] = own
        table.subdirectories[table.slot(own)] += 1
        if table.parent[slot] != own:
            text = f"directory {ino} says its parent is {table.parent[slot]}"
            self._report(catalogue.DIRECTORY_PARENT, name, text, ino=ino)
