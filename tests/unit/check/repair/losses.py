"""What a repair may lose: a name only if the leaf that held it, or the record of its inode, was damaged; a byte only if
its block, or the leaf that mapped it, was. What lies in a record itself (few entries, few extents) has it as its leaf.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.inodefile import read_inode_file
from deferfs.check.inodes import check_table
from deferfs.check.report import Findings
from deferfs.check.superblocks import read_superblock
from deferfs.device import MemoryDevice
from deferfs.ondisk.directory import unpack_entry
from deferfs.ondisk.format import INODE_BYTES, Format
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_BYTES,
    FORM_DIRECTORY_TREE,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    ROOT_INO,
    Inode,
)
from deferfs.ondisk.node import EXTENT, UNWRITTEN, DirectoryNode, ExtentNode, Node


class Name(NamedTuple):
    """A name in a directory."""

    directory: int
    name: bytes
    ino: int


class Piece(NamedTuple):
    """The bytes of one block of a file; `logical` is -1 for those that are in the record itself."""

    ino: int
    logical: int
    content: bytes


class Holdings(NamedTuple):
    """Every name and every written block of an image's files, with the blocks that each rests on."""

    names: dict[Name, frozenset[int]]
    pieces: dict[Piece, frozenset[int]]


class Losses(NamedTuple):
    """Names and pieces that an image does not hold any more: those that the damage accounts for, and `beyond` it."""

    names: list[Name]
    pieces: list[Piece]
    names_beyond: list[Name]
    pieces_beyond: list[Piece]


class _Image:
    """The inodes and trees of a sound image."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        device = MemoryDevice.from_bytes(data)
        self.superblock = read_superblock(device, Findings())
        self.fmt: Format = self.superblock.format
        context = Context(device, self.superblock, Findings(), Claims(self.superblock.blocks))
        file = read_inode_file(context)
        assert file is not None
        self.table = check_table(context, file)

    def block(self, address: int) -> bytes:
        size = self.fmt.block_size
        return self.data[address * size : (address + 1) * size]

    def records(self) -> Iterator[tuple[int, Inode]]:
        """(block of the record, record) of the root directory and the users' inodes that have names."""
        for ino, slot in self.table.inodes():
            if self.table.types[slot] and (ino >= FIRST_INO or ino == ROOT_INO) and self.table.nlink[slot]:
                address, index = self.table.locate(ino)
                raw = self.block(address)[index * INODE_BYTES : (index + 1) * INODE_BYTES]
                yield address, Inode.decode(self.fmt, address, raw)

    def entries(self, record: int, inode: Inode, kind: type[Node]) -> Iterator[tuple[int, int, bytes]]:
        """(leaf, key, value) of all entries of an inode."""
        if inode.form not in (FORM_DIRECTORY_TREE, FORM_EXTENT_TREE):
            yield from ((record, key, value) for key, value in inode.entries)
            return
        todo = [inode.root]
        while todo:
            address = todo.pop()
            node = kind.decode(self.fmt, address, self.block(address))
            if node.level:
                todo += node.children
            else:
                yield from ((address, key, value) for key, value in zip(node.keys, node.values, strict=True))


def holdings(data: bytes) -> Holdings:
    """Of a sound image."""
    image = _Image(data)
    names: dict[Name, frozenset[int]] = {}
    pieces: dict[Piece, frozenset[int]] = {}
    for record, inode in image.records():
        if stat.S_ISDIR(inode.mode):
            for leaf, _, value in image.entries(record, inode, DirectoryNode):
                ino, _, name = unpack_entry(value)
                names[Name(inode.ino, name, ino)] = frozenset((leaf, image.table.locate(ino)[0]))
        elif inode.form == FORM_BYTES:
            pieces[Piece(inode.ino, -1, inode.inline)] = frozenset([record])
        elif inode.form in (FORM_EXTENTS, FORM_EXTENT_TREE):
            for leaf, logical, value in image.entries(record, inode, ExtentNode):
                physical, length, flags = EXTENT.unpack(value)
                for at in range(0 if flags & UNWRITTEN else length):
                    content = _before_eof(image, inode, logical + at, image.block(physical + at))
                    if content:
                        pieces[Piece(inode.ino, logical + at, content)] = frozenset((leaf, physical + at))
    return Holdings(names, pieces)


def _before_eof(image: _Image, inode: Inode, logical: int, content: bytes) -> bytes:
    """What of a block is the file's: of a symlink, what its record says; of a file, which may come out longer, what
    counts is that these bytes are there.
    """
    return content[: max(0, inode.size - logical * image.fmt.block_size)]


def losses(before: Holdings, now: Holdings, hit: set[int]) -> Losses:
    """What was lost between two images, when the blocks `hit` were damaged."""
    places: dict[tuple[int, int], bytes] = {(piece.ino, piece.logical): piece.content for piece in now.pieces}
    names = [name for name in before.names if name not in now.names]
    pieces = [p for p in before.pieces if not places.get((p.ino, p.logical), b"").startswith(p.content)]
    return Losses(
        names,
        pieces,
        [name for name in names if not before.names[name] & hit],
        [piece for piece in pieces if not before.pieces[piece] & hit],
    )
