"""Extents of a file: the mapping of logical to physical blocks.

**Invariants:** extents do not overlap; contiguous extents are merged; an unwritten extent reads as zeros. Units:
filesystem blocks.
"""

from __future__ import annotations

from typing import NamedTuple

from deferfs.errors import CorruptionError
from deferfs.limits import EXTENT_BLOCKS_MAX
from deferfs.ondisk.format import HEADER_BYTES
from deferfs.ondisk.inode import FORM_EXTENT_TREE, FORM_EXTENTS, Inode
from deferfs.ondisk.node import EXTENT, UNWRITTEN, ExtentNode
from deferfs.store.fork import Fork, extent_fork
from deferfs.store.plan import Plan

LOGICAL_MAX = (1 << 63) - 1
"""Upper bound of logical block numbers."""


class Mapping(NamedTuple):
    """`length` blocks from `logical` on. `physical` is 0 for a hole."""

    logical: int
    physical: int
    length: int
    unwritten: bool

    @property
    def end(self) -> int:
        return self.logical + self.length


def _mapping(entry: tuple[int, bytes]) -> Mapping:
    physical, length, flags = EXTENT.unpack(entry[1])
    if not length or not physical:
        raise CorruptionError(f"damaged extent at logical block {entry[0]}")
    return Mapping(entry[0], physical, length, bool(flags & UNWRITTEN))


def _value(mapping: Mapping) -> bytes:
    return EXTENT.pack(mapping.physical, mapping.length, UNWRITTEN if mapping.unwritten else 0)


def map_range(plan: Plan, inode: Inode, start: int, count: int) -> list[Mapping]:
    """The mappings of [start, start + count), including holes, in order and cut to the range."""
    found: list[Mapping] = []
    fork = extent_fork(plan, inode)
    superblock = plan.store.superblock
    at, end = start, start + count
    entry = fork.floor(start)
    if entry is not None and _mapping(entry).end <= start:
        entry = None
    while at < end:
        if entry is None:
            entry = fork.ceiling(at)
        if entry is None or entry[0] >= end:
            found.append(Mapping(at, 0, end - at, False))
            break
        extent = _mapping(entry)
        if not superblock.may_hold(extent.physical, extent.length):
            raise CorruptionError(
                f"inode {inode.ino}: blocks {extent.physical} to {extent.physical + extent.length - 1}"
            )
        if extent.logical > at:
            found.append(Mapping(at, 0, extent.logical - at, False))
            at = extent.logical
        skip = at - extent.logical
        length = min(extent.length - skip, end - at)
        found.append(Mapping(at, extent.physical + skip, length, extent.unwritten))
        at += length
        entry = None
    return found


def count_estimate(plan: Plan, inode: Inode) -> int:
    """An estimate of the number of extents from cached blocks only: exact for inline extents, else from the tree's
    root, with all other nodes taken for half full."""
    if inode.form == FORM_EXTENTS:
        return len(inode.entries)
    if inode.form != FORM_EXTENT_TREE:
        return 0
    entry = plan.store.cache.entries.get(inode.root)
    per_leaf = (plan.store.fmt.block_size - HEADER_BYTES) // (8 + EXTENT.size) // 2
    if entry is None or not isinstance(entry.obj, ExtentNode):
        return per_leaf
    root = entry.obj
    if not root.level:
        return len(root.keys)
    per_node = (plan.store.fmt.block_size - HEADER_BYTES) // 16 // 2
    return len(root.keys) * per_leaf * int(per_node ** (root.level - 1))


def last_mapping(plan: Plan, inode: Inode) -> Mapping | None:
    """The extent with the highest logical blocks, or None."""
    entry = extent_fork(plan, inode).floor(LOGICAL_MAX)
    return None if entry is None else _mapping(entry)


def insert(plan: Plan, inode: Inode, new: Mapping) -> None:
    """Map a hole. Merges the new extent with contiguous neighbours."""
    fork = extent_fork(plan, inode)
    inode.blocks += new.length
    _insert(fork, new)


def _insert(fork: Fork, new: Mapping) -> None:
    before = fork.floor(new.logical)
    if before is not None:
        left = _mapping(before)
        if left.end > new.logical:
            raise CorruptionError(f"extents overlap at logical block {new.logical}")
        if _continues(left, new):
            new = Mapping(left.logical, left.physical, left.length + new.length, new.unwritten)
            after = fork.ceiling(new.end) if new.length < EXTENT_BLOCKS_MAX else None
            if after is not None and _continues(new, right := _mapping(after)):
                fork.delete(right.logical)
                new = new._replace(length=new.length + right.length)
            fork.replace(new.logical, _value(new))
            return
    after = fork.ceiling(new.logical)
    if after is not None:
        right = _mapping(after)
        if new.end > right.logical:
            raise CorruptionError(f"extents overlap at logical block {right.logical}")
        if _continues(new, right):
            fork.delete(right.logical)
            new = new._replace(length=new.length + right.length)
    fork.insert(new.logical, _value(new))


def _continues(left: Mapping, right: Mapping) -> bool:
    return (
        left.end == right.logical
        and left.physical + left.length == right.physical
        and left.unwritten == right.unwritten
        and left.length + right.length <= EXTENT_BLOCKS_MAX
    )


def _cut_out(fork: Fork, start: int, end: int) -> list[Mapping]:
    """Unmap [start, end); returns the mapped pieces."""
    pieces: list[Mapping] = []
    entry = fork.floor(start)
    if entry is None or _mapping(entry).end <= start:
        entry = fork.ceiling(start)
    while entry is not None and entry[0] < end:
        extent = _mapping(entry)
        low, high = max(extent.logical, start), min(extent.end, end)
        pieces.append(Mapping(low, extent.physical + low - extent.logical, high - low, extent.unwritten))
        if low > extent.logical:
            fork.replace(extent.logical, _value(extent._replace(length=low - extent.logical)))
        else:
            fork.delete(extent.logical)
        if high < extent.end:
            rest = Mapping(high, extent.physical + high - extent.logical, extent.end - high, extent.unwritten)
            fork.insert(rest.logical, _value(rest))
        entry = fork.ceiling(high)
    return pieces


def remove(plan: Plan, inode: Inode, start: int, end: int) -> list[Mapping]:
    """Unmap [start, end); returns the mapped pieces, which the caller frees."""
    pieces = _cut_out(extent_fork(plan, inode), start, end)
    inode.blocks -= sum(piece.length for piece in pieces)
    return pieces


def mark_written(plan: Plan, inode: Inode, start: int, count: int) -> None:
    """The blocks [start, start + count) of unwritten extents now hold data."""
    fork = extent_fork(plan, inode)
    for piece in _cut_out(fork, start, start + count):
        _insert(fork, piece._replace(unwritten=False))


def free_from(plan: Plan, inode: Inode, keep: int, extents_max: int) -> bool:
    """Free mapped blocks at or past logical block `keep`, from the end of the file backwards, at most `extents_max`
    extents. Returns whether none is left.

    Going backwards leaves a file without new holes after every step.
    """
    for _ in range(extents_max):
        extent = last_mapping(plan, inode)
        if extent is None or extent.end <= keep:
            return True
        low = max(extent.logical, keep)
        pieces = remove(plan, inode, low, extent.end)
        if not pieces:
            raise CorruptionError(f"inode {inode.ino}: extents are out of order")
        for piece in pieces:
            plan.free(piece.physical, piece.length)
    extent = last_mapping(plan, inode)
    return extent is None or extent.end <= keep
