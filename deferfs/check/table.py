"""What the check remembers of every inode: a few arrays, some 35 bytes an inode."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from deferfs.check.extents import Extent
from deferfs.check.inodefile import InodeFile
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import FIRST_INO, Inode

FREE: Final = 0
"""The inode is not in use."""
DAMAGED: Final = 255
"""The record cannot be used: links to it are not judged."""
TYPE_DIRECTORY: Final = 4
TYPE_FILE: Final = 8
TYPE_SYMLINK: Final = 10
_TYPES: Final = frozenset((1, 2, TYPE_DIRECTORY, 6, TYPE_FILE, TYPE_SYMLINK, 12))
"""File types that exist (S_IFMT >> 12)."""


class InodeTable:
    """Per inode: its type as in directory entries (S_IFMT >> 12; FREE, DAMAGED), what its record
    says (`nlink`, `generation`, `parent`) and what is found in directories (`links`,
    `subdirectories`, `found_in`).

    **Invariant:** inodes have slots; chunk `c` of the inode file has the slots [bases[c], bases[c]
    + inodes_per_chunk). Only mapped chunks have slots, so memory follows the size of the image,
    whatever inode numbers it names.
    """

    def __init__(self, fmt: Format, file: InodeFile) -> None:
        self.per_chunk = fmt.inodes_per_chunk
        self.per_block = fmt.inodes_per_block
        self.file = file
        self.bases = {number: i * self.per_chunk for i, number in enumerate(sorted(file.chunks))}
        slots = len(file.chunks) * self.per_chunk
        self.types = bytearray(slots)
        self.nlink = array("I", bytes(4 * slots))
        self.generation = array("I", bytes(4 * slots))
        self.parent = array("Q", bytes(8 * slots))
        self.links = array("I", bytes(4 * slots))
        self.subdirectories = array("I", bytes(4 * slots))
        self.found_in = array("Q", bytes(8 * slots))
        self.orphan_slots: dict[int, int] = {}
        """Inodes without links -> orphan slot + 1 that their record names."""
        self.orphan_blocks: dict[int, int] = {}
        """Inodes without links -> blocks that their record counts."""
        self.orphan_file: list[Extent] = []
        """Where the orphan table lies."""
        self.held: dict[int, int] = {}
        """Directories that are trees -> blocks they hold besides the nodes, or -1 when unknown."""

    def slot(self, ino: int) -> int:
        """The slot of an inode, or -1 when no chunk is mapped for it."""
        number, index = divmod(ino, self.per_chunk)
        base = self.bases.get(number)
        return -1 if base is None else base + index

    def locate(self, ino: int) -> tuple[int, int]:
        """(address of the table block, index in it) of an inode that has a slot."""
        number, index = divmod(ino, self.per_chunk)
        block, index = divmod(index, self.per_block)
        return self.file.block(number, block), index

    def type_of(self, ino: int) -> int:
        """FREE when there is no such inode."""
        slot = self.slot(ino)
        return FREE if slot < 0 else self.types[slot]

    def enter(self, slot: int, inode: Inode) -> None:
        """Remember a record in use."""
        file_type = inode.mode >> 12
        self.types[slot] = file_type if file_type in _TYPES else DAMAGED
        self.nlink[slot] = inode.nlink
        self.generation[slot] = inode.generation
        self.parent[slot] = inode.parent
        if inode.nlink == 0 and inode.ino >= FIRST_INO:
            self.orphan_slots[inode.ino] = inode.orphan_slot
            self.orphan_blocks[inode.ino] = inode.blocks

    def inodes(self) -> Iterator[tuple[int, int]]:
        """(inode, slot) of all slots, ascending."""
        for number, base in self.bases.items():
            first = number * self.per_chunk
            for index in range(self.per_chunk):
                yield first + index, base + index
