"""Step 2: what files map. A block of file data that two files claim is copied for the second: neither loses it."""

from __future__ import annotations

import stat
from bisect import bisect, insort
from collections.abc import Iterator
from typing import Final, NamedTuple

from deferfs.check.claims import runs_of_ones
from deferfs.check.repair.attributes import chain_blocks
from deferfs.check.repair.context import NoFreeBlockError, RepairContext
from deferfs.check.repair.fields import blank
from deferfs.check.repair.leaves import torn_leaf
from deferfs.check.repair.scan import Marks
from deferfs.check.repair.trees import Entry, Remains, build
from deferfs.check.table import FREE, TYPE_DIRECTORY
from deferfs.errors import DeviceError
from deferfs.limits import EXTENT_BLOCKS_MAX, FILE_BYTES_MAX, SYMLINK_BYTES_MAX
from deferfs.ondisk.inode import (
    FIRST_INO,
    FLAG_TRUNCATING,
    FORM_BYTES,
    FORM_DIRECTORY_TREE,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    Inode,
)
from deferfs.ondisk.node import EXTENT, UNWRITTEN, DirectoryNode, ExtentNode

COPIES_MAX: Final = 1 << 16
"""Runs of shared blocks that are copied; an image with more is too damaged to be worth it."""


class Piece(NamedTuple):
    """`length` blocks of a file from `logical` on, in the blocks from `physical` on."""

    logical: int
    physical: int
    length: int
    flags: int


class _Rebuild:
    """A file that maps other pieces than its record says: those it keeps, and those to be copied."""

    __slots__ = ("copies", "kept")

    def __init__(self, kept: list[Piece], copies: list[Piece]) -> None:
        self.kept = kept
        self.copies = copies


class ExtentMender:
    """Goes through all files; then `finish` writes the mappings that have changed, which takes free blocks."""

    def __init__(self, repair: RepairContext) -> None:
        self.repair = repair
        self.limit = FILE_BYTES_MAX // repair.fmt.block_size
        self.rebuilds: dict[int, _Rebuild] = {}
        self.copies = 0

    def mend_all(self) -> None:
        """Claim the blocks of every inode but directories, and correct sizes and counts of blocks."""
        repair, table = self.repair, self.repair.table
        for ino, slot in users_inodes(repair):
            if table.types[slot] != TYPE_DIRECTORY and not repair.doubtful[slot]:
                self._mend(repair.inode(ino), slot)
        for ino in self.rebuilds:
            self._take_lost(ino, repair.lost_leaves.get(ino, []))
            for address in sorted(repair.torn_leaves.get(ino, ())):
                self._take_torn(ino, address)
        if repair.doubtful.any():
            for ino, slot in users_inodes(repair):
                if table.types[slot] != TYPE_DIRECTORY and repair.doubtful[slot]:
                    self._mend_doubtful(repair.inode(ino), slot)

    def _mend_doubtful(self, inode: Inode, slot: int) -> None:
        """Mend an inode whose record has a wrong checksum: it keeps blocks that no other inode claims, and that are
        marked as used. Nodes of a tree name their owner, so what they map is not in doubt.
        """
        repair, marks = self.repair, Marks(self.repair)
        runs = [EXTENT.unpack(value)[:2] for _, value in inode.entries]
        end = 0
        for first, length in sorted(runs):
            after = first + length
            if first < end or repair.used.find(1, first, after) >= 0 or not marks.all_used(first, after):
                self._free(inode, slot, [], "its record is damaged, and maps blocks of others")
                return
            end = after
        self._mend(inode, slot)

    def _take_lost(self, ino: int, leaves: list[tuple[int, int]]) -> None:
        """Take what leaves map that were found without their tree."""
        repair = self.repair
        for _, address in leaves:
            if not repair.used[address]:  # otherwise it holds data by now
                node = ExtentNode.decode(repair.fmt, address, repair.read(address) or b"")
                self._take(ino, node, self.limit)

    def _take_torn(self, ino: int, address: int) -> None:
        """Take what a leaf with a wrong checksum seems to map, within the file."""
        repair, data = self.repair, self.repair.read(address)
        node = None if data is None else torn_leaf(repair.fmt, ExtentNode, ino, address, data)
        if node is not None:
            eof = -(-repair.inode(ino).size // repair.fmt.block_size)
            taken = self._take(ino, node, eof)
            text = f"{taken} of its {len(node.keys)} extents kept, contents may be wrong"
            repair.note(f"inode {ino}: block {address} of its tree is damaged; {text}")

    def _take(self, ino: int, node: ExtentNode, limit: int) -> int:
        """Take what the leaf maps below logical block `limit`, where no other inode holds it and the bitmap calls it
        used: otherwise it would be what a freed leaf has left behind. The number of extents taken.
        """
        repair, rebuild, marks, taken = self.repair, self.rebuilds[ino], Marks(self.repair), 0
        there = sorted(rebuild.kept + rebuild.copies)
        for piece in self._sensible(list(zip(node.keys, node.values, strict=True))):
            first, end = piece.physical, piece.physical + piece.length
            within = piece.logical + piece.length <= limit and _fits_between(there, piece)
            if within and repair.used.find(1, first, end) < 0 and marks.all_used(first, end):
                repair.claim(first, piece.length)
                insort(there, piece)
                rebuild.kept.append(piece)
                taken += 1
        inode = repair.inode(ino)
        _mend_size(inode, there, repair.fmt.block_size)
        repair.put(inode)
        return taken

    def _mend(self, inode: Inode, slot: int) -> None:
        repair = self.repair
        remains = Remains(repair, ExtentNode, inode.ino, inode.root)
        if inode.form == FORM_EXTENT_TREE:
            found: list[Entry] = list(remains.entries())
        else:
            found = list(inode.entries) if inode.form == FORM_EXTENTS else []
        pieces = self._sensible(found)
        changed = remains.damaged or [(p.logical, EXTENT.pack(*p[1:])) for p in pieces] != found
        size = inode.size
        _mend_size(inode, pieces, repair.fmt.block_size)
        if inode.size != size:
            repair.note(f"inode {inode.ino}: size {size}, set to {inode.size}")
        if stat.S_ISLNK(inode.mode) and inode.nlink and not _symlink_whole(inode, pieces, repair.fmt.block_size):
            self._free(inode, slot, remains.nodes, "a symlink without its target")
            return
        kept, copies = self._claim(pieces)
        if changed or copies or len(kept) != len(pieces):
            self.rebuilds[inode.ino] = _Rebuild(kept, copies)
            repair.note(f"inode {inode.ino}: mapping mended")
        inode.blocks = sum(p.length for p in kept) + len(remains.nodes) + len(chain_blocks(repair, inode))
        repair.put(inode)

    def _sensible(self, found: list[Entry]) -> list[Piece]:
        """The possible extents, in order and without those that overlap an earlier one."""
        pieces: list[Piece] = []
        end = 0
        for key, value in sorted(found):
            physical, length, flags = EXTENT.unpack(value)
            fits = 0 < length <= EXTENT_BLOCKS_MAX and key + length <= self.limit
            if fits and self.repair.inside(physical, length) and key >= end:
                pieces.append(Piece(key, physical, length, flags & UNWRITTEN))
                end = key + length
        return pieces

    def _claim(self, pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
        """(pieces now held, pieces held by another file's data). Blocks that metadata holds are in neither."""
        repair = self.repair
        kept: list[Piece] = []
        copies: list[Piece] = []
        for piece in pieces:
            end = piece.physical + piece.length
            taken = [*runs_of_ones(repair.used, piece.physical, end), (end, end)]
            at = piece.physical
            for first, after in taken:
                if first > at:
                    part = _part(piece, at, first)
                    repair.claim(part.physical, part.length)
                    kept.append(part)
                if after > first and not piece.flags and self.copies < COPIES_MAX:
                    for start, stop in _data_runs(repair, first, after):
                        self.copies += 1
                        copies.append(_part(piece, start, stop))
                at = after
        return kept, copies

    def _free(self, inode: Inode, slot: int, nodes: list[int], why: str) -> None:
        repair = self.repair
        repair.note(f"inode {inode.ino}: {why}; freed")
        for address in [*nodes, *chain_blocks(repair, inode)]:
            repair.release(address, 1)
        repair.table.types[slot] = FREE
        repair.table.orphan_slots.pop(inode.ino, None)
        repair.put(blank(inode.ino, inode.generation))

    # --- what takes free blocks ---
    def finish(self) -> None:
        """Copy what is shared, and write the mappings that have changed."""
        repair = self.repair
        for ino, rebuild in self.rebuilds.items():
            inode = repair.inode(ino)
            if inode.form == FORM_EXTENT_TREE:
                remains = Remains(repair, ExtentNode, ino, inode.root)
                for _ in remains.leaves():
                    pass
                remains.release()
            copied = [piece for copy in rebuild.copies for piece in self._copy(copy)]
            missing = sum(p.length for p in rebuild.copies) - sum(p.length for p in copied)
            if missing:
                repair.note(f"inode {ino}: {missing} blocks that others hold could not be copied: holes now")
            store_extents(repair, inode, sorted(rebuild.kept + copied))
            inode.blocks += len(chain_blocks(repair, inode))
            _mend_size(inode, rebuild.kept + copied, repair.fmt.block_size)
            repair.put(inode)

    def _copy(self, piece: Piece) -> list[Piece]:
        """The same data in blocks of its own, written at once: nothing refers to them yet."""
        repair, size = self.repair, self.repair.fmt.block_size
        made: list[Piece] = []
        for offset in range(piece.length):
            try:
                data = repair.disk.read((piece.physical + offset) * size, size)
                address = repair.allocate(structure=False, at_once=True)
            except (DeviceError, NoFreeBlockError):
                continue
            repair.fresh.discard(address)
            repair.disk.write(address * size, data)
            made.append(Piece(piece.logical + offset, address, 1, 0))
        return _joined(made)


def store_extents(repair: RepairContext, inode: Inode, pieces: list[Piece]) -> None:
    """Map `pieces`, inline when they fit; `blocks` counts them and the nodes. Without a free block for a node, only
    what fits inline."""
    entries = [(p.logical, EXTENT.pack(*p[1:])) for p in _joined(pieces)]
    inode.blocks = sum(p.length for p in pieces)
    inline_max = inode.inline_capacity() // (8 + EXTENT.size)
    if len(entries) <= inline_max:
        inode.set_entries(FORM_EXTENTS, tuple(entries))
        return
    try:
        root, nodes = build(repair, ExtentNode, inode.ino, entries)
    except NoFreeBlockError:
        repair.note(f"inode {inode.ino}: no free block for its extent tree; {len(entries) - inline_max} extents lost")
        for _, value in entries[inline_max:]:
            physical, length, _ = EXTENT.unpack(value)
            repair.release(physical, length)
            inode.blocks -= length
        inode.set_entries(FORM_EXTENTS, tuple(entries[:inline_max]))
        return
    inode.set_tree(FORM_EXTENT_TREE, root)
    inode.blocks += nodes


def held_by(repair: RepairContext, inode: Inode) -> list[tuple[int, int]]:
    """(first, length) of everything that a mended inode holds, whatever it is."""
    runs = [(address, 1) for address in chain_blocks(repair, inode)]
    entries: list[Entry] = list(inode.entries)
    if inode.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
        kind = ExtentNode if inode.form == FORM_EXTENT_TREE else DirectoryNode
        remains = Remains(repair, kind, inode.ino, inode.root)
        entries = list(remains.entries())
        runs += [(address, 1) for address in remains.nodes]
    if inode.form in (FORM_EXTENTS, FORM_EXTENT_TREE):
        runs += [EXTENT.unpack(value)[:2] for _, value in entries]
    return runs


def users_inodes(repair: RepairContext) -> Iterator[tuple[int, int]]:
    """(inode, slot) of the users' inodes in use."""
    types = repair.table.types
    return ((ino, slot) for ino, slot in repair.table.inodes() if types[slot] and ino >= FIRST_INO)


def _fits_between(kept: list[Piece], piece: Piece) -> bool:
    """Whether none of `kept`, in order, maps a logical block of the piece."""
    at = bisect(kept, piece)
    before, after = kept[at - 1 : at], kept[at : at + 1]
    end = piece.logical + piece.length
    return all(p.logical + p.length <= piece.logical for p in before) and all(end <= p.logical for p in after)


def _part(piece: Piece, start: int, stop: int) -> Piece:
    """What of a piece lies in the blocks [start, stop)."""
    return Piece(piece.logical + start - piece.physical, start, stop - start, piece.flags)


def _data_runs(repair: RepairContext, first: int, end: int) -> list[tuple[int, int]]:
    """What of [first, end) is file data."""
    return [(first + start, first + stop) for start, stop in runs_of_ones(~repair.structure[first:end])]


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Merge runs that follow each other."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.logical + last.length == piece.logical
            and last.physical + last.length == piece.physical
            and last.flags == piece.flags
            and last.length + piece.length <= EXTENT_BLOCKS_MAX
        ):
            joined[-1] = last._replace(length=last.length + piece.length)
        else:
            joined.append(piece)
    return joined


def _mend_size(inode: Inode, pieces: list[Piece], block_size: int) -> None:
    """A file is at least as long as what is written of it, unless a truncate is under way."""
    if not stat.S_ISREG(inode.mode):
        if inode.form == FORM_BYTES:
            inode.size = len(inode.inline)
        return
    written = max((p.logical + p.length for p in pieces if not p.flags & UNWRITTEN), default=0)
    mapped = max((p.logical + p.length for p in pieces), default=0)
    if inode.size > FILE_BYTES_MAX:
        inode.size = max(mapped * block_size, len(inode.inline))
    if not inode.flags & FLAG_TRUNCATING and written > -(-inode.size // block_size):
        inode.size = written * block_size
    inode.size = max(inode.size, len(inode.inline))


def _symlink_whole(inode: Inode, pieces: list[Piece], block_size: int) -> bool:
    if not 0 < inode.size <= SYMLINK_BYTES_MAX:
        return False
    if inode.form == FORM_BYTES:
        return True
    end = 0
    for piece in pieces:
        if piece.logical != end or piece.flags & UNWRITTEN:
            return False
        end += piece.length
    return end == -(-inode.size // block_size)
