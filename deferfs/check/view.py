"""Looking at an image piece by piece, damaged or not: what the debug commands show.

Everything is read through the log, as a mount would see it. Work and memory are bounded by what the image really holds,
whatever its numbers say: trees visit a block once, and what cannot be read is reported and skipped.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import NamedTuple

from deferfs.check import catalogue
from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.extents import Extent, Mapping
from deferfs.check.inodefile import read_inode_file
from deferfs.check.log import LogContent, replay
from deferfs.check.orphans import BAD_BLOCKS_MAX
from deferfs.check.report import Findings, Problem
from deferfs.check.superblocks import read_superblock
from deferfs.check.trees import Tree
from deferfs.check.xattrs import read_chain
from deferfs.device.base import Device
from deferfs.errors import CorruptionError, ImageError
from deferfs.ondisk.directory import unpack_entry
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import FORM_DIRECTORY_TREE, FORM_ENTRIES, ORPHAN_FILE_INO, ROOT_INO, Inode
from deferfs.ondisk.node import DirectoryNode
from deferfs.ondisk.orphan import OrphanBlock, OrphanSlot
from deferfs.ondisk.xattr import unpack_xattrs

_INO_MAX = 1 << 62
"""Inode numbers lie below; larger ones in an image are damage."""


class Visited(Claims):
    """Claims of a reader that only browses: single blocks are visited once, runs are taken as they are."""

    def __init__(self, blocks: int) -> None:
        super().__init__(0)
        self.blocks = blocks
        self.seen: set[int] = set()

    def inside(self, first: int, length: int) -> bool:
        """As `Claims.inside`."""
        return first > 0 and length > 0 and first + length <= self.blocks

    def claim(self, first: int, length: int, owner: str) -> bool:
        """False for a single block seen before."""
        if length > 1:
            return True
        new = first not in self.seen
        self.seen.add(first)
        return new


class Entry(NamedTuple):
    """One directory entry; `file_type` as in the format."""

    key: int
    ino: int
    file_type: int
    name: bytes


class View:
    """An image. `problems` gathers what was found to be wrong while it was looked at."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.findings = Findings()
        self.superblock = read_superblock(device, self.findings)
        self.fmt = self.superblock.format
        self.overlay: dict[int, int] = {}
        context = self.context()
        self.log: LogContent = replay(context)
        self.overlay = context.reader.overlay
        self.file = read_inode_file(context)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with what was looked at so far."""
        return self.findings.problems

    def context(self) -> Context:
        """What a walk over one structure needs."""
        context = Context(self.device, self.superblock, self.findings, Visited(self.superblock.blocks))
        context.reader.overlay = self.overlay
        return context

    # --- inodes ---
    def locate(self, ino: int) -> tuple[int, int]:
        """(address of the table block, index in it). ImageError when no chunk of the table is mapped for it."""
        fmt = self.fmt
        if self.file is None:
            raise ImageError(f"{self.device.name}: the inode file cannot be read; see deferfs fsck -n")
        number, index = divmod(ino, fmt.inodes_per_chunk)
        if not 0 < ino < _INO_MAX or number not in self.file.chunks:
            raise ImageError(
                f"{self.device.name}: inode {ino} does not exist: its chunk of the inode table is not mapped"
            )
        block, slot = divmod(index, fmt.inodes_per_block)
        return self.file.block(number, block), slot

    def inode(self, ino: int) -> Inode:
        """The record as found, in use or not: a wrong checksum is only reported. ImageError when there is none."""
        address, slot = self.locate(ino)
        data = self.context().reader.read(address)
        try:
            if data is None:
                raise CorruptionError(f"block {address} cannot be read")
            raw = data[slot * INODE_BYTES : (slot + 1) * INODE_BYTES]
            sealed = self.fmt.checksum(address, raw[4:]).to_bytes(4, "little") + raw[4:]
            inode = Inode.decode(self.fmt, address, sealed)
        except CorruptionError as error:
            raise ImageError(f"{self.device.name}: inode {ino}: {error.detail}") from error
        if sealed != raw:
            self.findings.add(catalogue.INODE_RECORD, f"inode {ino}: wrong checksum in block {address}", ino=ino)
        return inode

    def find(self, what: str) -> Inode:
        """An inode in use, by its number or by its absolute path. ImageError."""
        if what.isascii() and what.isdecimal():
            return self.inode(int(what))
        inode = self.inode(ROOT_INO)
        for name in what.encode("utf-8", "surrogateescape").split(b"/"):
            if name in (b"", b"."):
                continue
            wanted = next((entry for entry in self.entries(inode) if entry.name == name), None)
            if wanted is None:
                raise ImageError(f"{self.device.name}: {what}: no such name in directory {inode.ino}")
            inode = self.inode(wanted.ino)
        return inode

    # --- what they hold ---
    def entries(self, inode: Inode) -> Iterator[Entry]:
        """The entries of a directory in key order; malformed ones are left out."""
        for key, value in self._values(inode):
            try:
                yield Entry(key, *unpack_entry(value))
            except CorruptionError:
                continue

    def _values(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        if not stat.S_ISDIR(inode.mode):
            raise ImageError(f"{self.device.name}: inode {inode.ino} is not a directory")
        if inode.form == FORM_ENTRIES:
            yield from inode.entries
        elif inode.form == FORM_DIRECTORY_TREE:
            for leaf in Tree(self.context(), DirectoryNode, inode.ino, inode.root).leaves():
                yield from zip(leaf.keys, leaf.values, strict=True)

    def extents(self, inode: Inode) -> tuple[list[Extent], int]:
        """(extents in logical order, nodes of the tree they are in)."""
        mapping = Mapping(self.context(), inode)
        found = list(mapping.extents())
        return found, mapping.blocks - sum(extent.length for extent in found)

    def xattrs(self, inode: Inode) -> dict[bytes, bytes]:
        """The extended attributes; with a problem, and without those that cannot be read."""
        context, found = self.context(), dict[bytes, bytes]()
        if inode.xattrs and inode.xattr_block:
            context.findings.add(catalogue.XATTR_BOTH, f"inode {inode.ino}: xattrs both inline and in blocks")
        for data in (inode.xattrs, read_chain(context, inode)[0]):
            try:
                found |= unpack_xattrs(data)
            except CorruptionError as error:
                context.findings.add(catalogue.XATTR_DAMAGED, f"inode {inode.ino}: {error.detail}")
        return found

    def orphans(self) -> Iterator[tuple[int, OrphanSlot]]:
        """(slot, content) of the used slots of the orphan table; blocks that cannot be read are left out."""
        context, per, bad = self.context(), self.fmt.orphans_per_block, 0
        for extent in self.extents(self.inode(ORPHAN_FILE_INO))[0]:
            for offset in range(extent.length):
                address = extent.physical + offset
                data = context.reader.read(address)
                try:
                    slots = OrphanBlock.decode(self.fmt, address, data or bytes(self.fmt.block_size)).slots
                except CorruptionError as error:
                    text = f"orphan file: {error.detail}"
                    self.findings.add(catalogue.ORPHAN_BLOCK, text, block=address)
                    bad += 1
                    if bad > BAD_BLOCKS_MAX:
                        raise ImageError(f"{self.device.name}: {text}, and {bad - 1} others like it") from error
                    continue
                first = (extent.logical + offset) * per
                yield from ((first + i, slot) for i, slot in enumerate(slots) if slot.ino)
