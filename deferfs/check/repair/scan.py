"""A scan of the whole image for metadata that nothing refers to any more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bitarray import bitarray

from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.salvage import give_block, record_from_leaf
from deferfs.check.table import DAMAGED, FREE
from deferfs.errors import CorruptionError, DeviceError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import FIRST_INO, ROOT_INO
from deferfs.ondisk.node import DirectoryNode, ExtentNode, Node

_SCAN_BYTES = 1 << 20
"""Bytes that a scan reads at a time."""
TREES: Final[dict[bytes, type[Node]]] = {kind.MAGIC: kind for kind in (DirectoryNode, ExtentNode)}
"""Magic -> kind of tree node."""


class Marks:
    """The free-space bitmaps as found: they tell freed metadata, which stays sound in blocks marked free, from lost
    metadata in use."""

    def __init__(self, repair: RepairContext) -> None:
        self.repair = repair
        self.group = -1
        self.bitmap: Bitmap | None = None

    def used(self, address: int) -> bool:
        """Whether the block is marked as used, or its bitmap cannot be read."""
        group, bit = divmod(address, self.repair.fmt.bits_per_bitmap)
        self._load(group)
        return self.bitmap is None or bool(self.bitmap.bits[bit])

    def any_used(self, first: int, end: int) -> bool:
        """The same for any of the blocks [first, end)."""
        return any(bits is None or bits.find(1, low, high) >= 0 for bits, low, high in self._parts(first, end))

    def all_used(self, first: int, end: int) -> bool:
        """The same for all of them."""
        return all(bits is None or bits.find(0, low, high) < 0 for bits, low, high in self._parts(first, end))

    def free_block(self) -> int | None:
        """A block that is marked as free and that nothing claims so far."""
        repair, size = self.repair, self.repair.fmt.bits_per_bitmap
        for group in range(repair.superblock.groups):
            self._load(group)
            taken = repair.stock.taken[group * size : (group + 1) * size]
            at = -1 if self.bitmap is None else (self.bitmap.bits[: len(taken)] | taken).find(0)
            if at >= 0:
                return group * size + at
        return None

    def use_last(self) -> None:
        """Have the stock hand out last the blocks that are, or may be, marked as used."""
        repair, size = self.repair, self.repair.fmt.bits_per_bitmap
        for group in range(repair.superblock.groups):
            self._load(group)
            first, end = group * size, min((group + 1) * size, repair.superblock.blocks)
            bits = ~bitarray(end - first, endian="little") if self.bitmap is None else self.bitmap.bits[: end - first]
            repair.stock.use_last(first, bits)

    def _parts(self, first: int, end: int) -> Iterator[tuple[bitarray | None, int, int]]:
        size = self.repair.fmt.bits_per_bitmap
        for group in range(first // size, (end - 1) // size + 1):
            self._load(group)
            bits = None if self.bitmap is None else self.bitmap.bits
            yield bits, max(first, group * size) - group * size, min(end, (group + 1) * size) - group * size

    def _load(self, group: int) -> None:
        repair = self.repair
        if group != self.group:
            self.group, at = group, repair.superblock.bitmap_address(group)
            try:
                data = repair.read(at) or bytes(repair.fmt.block_size)
                self.bitmap = repair.decode(Bitmap, at, data, f"free-space bitmap of group {group}")
            except CorruptionError:
                self.bitmap = None


def used_blocks(
    repair: RepairContext, marks: Marks, magics: tuple[bytes, ...], besides: set[int]
) -> Iterator[tuple[int, bytes]]:
    """(address, content) of the blocks in which one of `magics` occurs, where any are marked as used or `besides`."""
    count = max(1, _SCAN_BYTES // repair.fmt.block_size)
    windows = {address // count for address in besides}
    for start in repair.steps("scan", range(0, repair.superblock.blocks, count)):
        end = min(start + count, repair.superblock.blocks)
        if start // count not in windows and not marks.any_used(start, end):
            continue
        for address, data in enumerate(_read(repair, start, end), start):
            if address >= repair.fmt.reserved_blocks and any(magic in data for magic in magics):
                yield address, data


def _read(repair: RepairContext, start: int, end: int) -> list[bytes]:
    size = repair.fmt.block_size
    try:
        data = repair.device.read(start * size, (end - start) * size)
    except DeviceError:
        return [repair.read(address) or b"" for address in range(start, end)]
    return [data[at : at + size] for at in range(0, len(data), size)]


def owner_of_leaf(repair: RepairContext, address: int, data: bytes) -> int | None:
    """The inode that the block, if it is a leaf with anything in it, proves to belong to."""
    kind = TREES.get(data[4:8])
    try:
        node = None if kind is None else kind.decode(repair.fmt, address, data)
    except CorruptionError:
        return None
    return None if node is None or node.level or not node.keys else node.owner


def find_lost_leaves(repair: RepairContext) -> None:
    """Find the leaves of trees of which inner nodes are damaged, or of which the record is lost. Those of directories
    are claimed; those of files have to wait until it is known what the sound ones map.

    A leaf names its owner. It counts when the bitmap calls it used and no other structure holds it.
    """
    table = repair.table
    if not repair.damaged_trees and DAMAGED not in table.types:
        return
    marks = Marks(repair)
    for address, data in used_blocks(repair, marks, tuple(TREES), set()):
        kind = TREES.get(data[4:8])
        if kind is None or repair.used[address] or not marks.used(address):
            continue
        try:
            node = repair.decode(kind, address, data, "a leaf")
        except CorruptionError:
            continue
        if node.level or not node.keys:
            continue
        if (
            table.type_of(node.owner) == DAMAGED
            and _may_have(node.owner, kind)
            and _has_place(repair, marks, node.owner)
        ):
            record_from_leaf(repair, node)
        if repair.damaged_trees.get(node.owner) is not kind:
            continue
        repair.lost_leaves.setdefault(node.owner, []).append((node.keys[0], address))
        repair.name(address)
        repair.note(f"inode {node.owner}: {len(node.keys)} entries of its tree found in block {address}")
        if kind is DirectoryNode:
            repair.claim(address, 1, structure=True)
    _give_up_records(repair)


def _may_have(ino: int, kind: type[Node]) -> bool:
    """Of the reserved inodes only the root directory has a tree that is found this way."""
    return ino >= FIRST_INO or (ino == ROOT_INO and kind is DirectoryNode)


def _table_block(repair: RepairContext, ino: int) -> tuple[int, int]:
    """(chunk, block of it) where the record of an inode lies."""
    return divmod(ino // repair.fmt.inodes_per_block, repair.fmt.chunk_blocks)


def _has_place(repair: RepairContext, marks: Marks, ino: int) -> bool:
    """Whether there is a block for the record, which may have to come in the place of a lost one. Not all claims are
    known yet, so it is one that is marked as free.
    """
    place = _table_block(repair, ino)
    if place in repair.lost_blocks:
        address = marks.free_block()
        if address is None:
            return False
        repair.claim(address, 1, structure=True)
        repair.fresh.add(address)
        give_block(repair, *place, address)
    return True


def _give_up_records(repair: RepairContext) -> None:
    """Free every record that is still DAMAGED, or re-create it if it is reserved: no later step can recover it."""
    types = repair.table.types
    for ino, slot in repair.table.inodes():
        if types[slot] == DAMAGED and _table_block(repair, ino) in repair.lost_blocks:
            types[slot] = FREE  # with the others of its block
        elif types[slot] == DAMAGED:
            reserved = ino < FIRST_INO
            types[slot] = repair.inode(ino).mode >> 12
            repair.note(f"inode {ino}: its record cannot be read; {'re-created' if reserved else 'freed'}")
