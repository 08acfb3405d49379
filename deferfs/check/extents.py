"""What the extents of one inode map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.trees import Tree
from deferfs.limits import EXTENT_BLOCKS_MAX, FILE_BYTES_MAX
from deferfs.ondisk.inode import FORM_EXTENT_TREE, FORM_EXTENTS, INODE_FILE_INO, Inode
from deferfs.ondisk.node import EXTENT, UNWRITTEN, ExtentNode

_KEYS_END = 1 << 64
"""All logical blocks of a tree lie below."""


class Extent(NamedTuple):
    """`length` logical blocks from `logical` on lie in physical blocks from `physical` on."""

    logical: int
    physical: int
    length: int
    flags: int

    @property
    def end(self) -> int:
        """The logical block after the last one."""
        return self.logical + self.length


class Mapping:
    """One walk over the extents of one inode, which claims what they map.

    After it: `blocks` (data and tree nodes), `end` (logical block after the last mapped one),
    `written_end` (the same for written blocks), `holes` (whether a logical block below `end` is
    unmapped) and `complete`.
    """

    def __init__(self, context: Context, inode: Inode) -> None:
        self.context = context
        self.inode = inode
        self.blocks = 0
        self.end = 0
        self.written_end = 0
        self.holes = False
        self.complete = True
        limit = FILE_BYTES_MAX // context.fmt.block_size
        self._limit = _KEYS_END if inode.ino == INODE_FILE_INO else limit

    def extents(self) -> Iterator[Extent]:
        """The usable extents in logical order."""
        inode = self.inode
        if inode.form == FORM_EXTENTS:
            for key, value in inode.entries:
                yield from self._take(key, value)
        elif inode.form == FORM_EXTENT_TREE:
            tree = Tree(self.context, ExtentNode, inode.ino, inode.root)
            for leaf in tree.leaves():
                for key, value in zip(leaf.keys, leaf.values, strict=True):
                    yield from self._take(key, value)
            self.blocks += tree.blocks
            self.complete = self.complete and tree.complete

    def walk(self) -> None:
        """Look at all extents, for their effect only."""
        for _ in self.extents():
            pass

    def _report(self, kind: catalogue.Kind, extent: Extent, text: str) -> None:
        ino = self.inode.ino
        where = f"inode {ino}: extent at logical block {extent.logical}: {text}"
        self.context.findings.add(kind, where, ino=ino, logical=extent.logical)

    def _take(self, key: int, value: bytes) -> Iterator[Extent]:
        extent = Extent(key, *EXTENT.unpack(value))
        if not 0 < extent.length <= EXTENT_BLOCKS_MAX or extent.end > self._limit:
            self._report(catalogue.EXTENT_LENGTH, extent, f"length {extent.length}")
            self.complete = False
            return
        claims = self.context.claims
        self.blocks += extent.length
        if not claims.inside(extent.physical, extent.length):
            text = f"{extent.length} blocks at {extent.physical} outside the image"
            self._report(catalogue.EXTENT_ADDRESS, extent, text)
            return
        ino = self.inode.ino
        claims.claim(extent.physical, extent.length, f"inode {ino}")
        if extent.flags & ~UNWRITTEN:
            self._report(catalogue.EXTENT_FLAGS, extent, f"flags {extent.flags:#x}")
        if extent.logical < self.end:
            self._report(catalogue.EXTENT_ORDER, extent, f"the one before ends at {self.end}")
            return
        self.holes = self.holes or extent.logical > self.end
        self.end = extent.end
        if not extent.flags & UNWRITTEN:
            self.written_end = extent.end
        yield extent
