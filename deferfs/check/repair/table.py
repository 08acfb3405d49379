"""Step 5: the inode table as a whole: chunks, bitmaps of inodes, and the file that maps them."""

from __future__ import annotations

from bitarray import bitarray

from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.extents import Piece, store_extents
from deferfs.check.repair.fields import blank
from deferfs.check.repair.salvage import give_block
from deferfs.check.repair.trees import Entry, Remains
from deferfs.check.table import FREE, TYPE_FILE
from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    Inode,
)
from deferfs.ondisk.node import EXTENT, ExtentNode


def claim_bitmaps(repair: RepairContext) -> None:
    """Claim the bitmaps of inode groups that are sound; the others are replaced later."""
    for group, address in sorted(repair.file.bitmaps.items()):
        repair.name(address)
        if _sound_bitmap(repair, group, address) is None:
            repair.note(f"inode group {group}: bitmap rebuilt", loses=False)
            del repair.file.bitmaps[group]
            if repair.inside(address, 1) and not repair.used[address]:
                repair.stock.give_back(address, 1)
        else:
            repair.claim(address, 1, structure=True)


def free_inode(repair: RepairContext) -> Inode:
    """A free record, to be put when it is filled in. The table grows when there is none. NoFreeBlockError."""
    table, fmt = repair.table, repair.fmt
    for ino, slot in table.inodes():
        chunk, index = divmod(ino, fmt.inodes_per_chunk)
        if (
            ino >= FIRST_INO
            and table.types[slot] == FREE
            and (chunk, index // fmt.inodes_per_block) not in repair.lost_blocks
        ):
            return _next_generation(repair, ino)
    number = next(n for n in range(len(table.bases) + 1) if n not in table.bases)
    base = table.bases[number] = len(table.types)
    for column in (table.types, table.nlink, table.generation, table.parent, table.links, table.subdirectories):
        column.extend([0] * fmt.inodes_per_chunk)
    table.found_in.extend([0] * fmt.inodes_per_chunk)
    assert base + fmt.inodes_per_chunk == len(table.types)
    repair.file.chunks[number], repair.file.scattered[number] = 0, [0] * fmt.chunk_blocks
    for index in range(fmt.chunk_blocks):
        _replace_block(repair, number, index)
    return blank(number * fmt.inodes_per_chunk, 1)


def _next_generation(repair: RepairContext, ino: int) -> Inode:
    old = repair.inode(ino)
    return blank(ino, (old.generation + 1) & 0xFFFF_FFFF)


def settle_table(repair: RepairContext) -> None:
    """Keep the chunks that hold inodes, and no others; write bitmaps and the inode file accordingly."""
    _empty_orphan_file(repair)
    fmt, file, table = repair.fmt, repair.file, repair.table
    for number in sorted(file.chunks):
        base = table.bases[number]
        in_use = number == 0 or any(table.types[base : base + fmt.inodes_per_chunk])
        for index in range(fmt.chunk_blocks):
            lost = (number, index) in repair.lost_blocks
            if in_use and lost:
                _replace_block(repair, number, index)
            elif not in_use and not lost:
                repair.release(file.block(number, index), 1)
        if not in_use:
            del file.chunks[number]
            file.scattered.pop(number, None)
    groups = {number // fmt.chunks_per_inode_group for number in file.chunks}
    for group in file.bitmaps.keys() - groups:
        repair.release(file.bitmaps.pop(group), 1)
    for group in sorted(groups):
        _write_bitmap(repair, group)
    _write_inode_file(repair)


def _replace_block(repair: RepairContext, number: int, index: int) -> None:
    """Give a chunk a fresh block of free records in the place of one that is lost; without a free block, overwrite the
    lost one."""
    old = repair.file.block(number, index)
    if repair.inside(old, 1) and not repair.used[old]:
        repair.stock.give_back(old, 1)
    give_block(repair, number, index, repair.allocate())


def _empty_orphan_file(repair: RepairContext) -> None:
    inode = repair.inode(ORPHAN_FILE_INO)
    inode.set_entries(FORM_EXTENTS, ())
    inode.blocks = 0
    repair.put(inode)


def _sound_bitmap(repair: RepairContext, group: int, address: int) -> Bitmap | None:
    if not repair.inside(address, 1) or repair.used[address]:
        return None
    try:
        data = repair.read(address) or bytes(repair.fmt.block_size)
        bitmap = repair.decode(Bitmap, address, data, f"bitmap of inode group {group}")
    except CorruptionError:
        return None
    return bitmap if bitmap.owner == group else None


def _write_bitmap(repair: RepairContext, group: int) -> None:
    fmt, table, file = repair.fmt, repair.table, repair.file
    bits = bitarray(fmt.bits_per_bitmap, endian="little")
    bits[fmt.inodes_per_group :] = 1
    if group == 0:
        bits[:FIRST_INO] = 1
    for number in range(group * fmt.chunks_per_inode_group, (group + 1) * fmt.chunks_per_inode_group):
        if number in file.chunks:
            base = table.bases[number]
            used = bitarray([1 if t else 0 for t in table.types[base : base + fmt.inodes_per_chunk]], endian="little")
            at = number % fmt.chunks_per_inode_group * fmt.inodes_per_chunk
            bits[at : at + fmt.inodes_per_chunk] |= used
    if group not in file.bitmaps:
        file.bitmaps[group] = repair.allocate()
    address = file.bitmaps[group]
    repair.write(address, Bitmap(group, bits).encode(fmt, address))


def _write_inode_file(repair: RepairContext) -> None:
    """The record of the inode file, and its tree when what it maps has changed."""
    fmt, file = repair.fmt, repair.file
    inode = repair.inode(INODE_FILE_INO)
    pieces = [Piece(group * fmt.inode_group_blocks, address, 1, 0) for group, address in file.bitmaps.items()]
    for number in file.chunks:
        group, chunk = divmod(number, fmt.chunks_per_inode_group)
        logical = group * fmt.inode_group_blocks + 1 + chunk * fmt.chunk_blocks
        pieces += [Piece(logical + i, file.block(number, i), 1, 0) for i in range(fmt.chunk_blocks)]
    pieces.sort()
    remains = Remains(repair, ExtentNode, INODE_FILE_INO, inode.root)
    entries = list(remains.entries()) if inode.form == FORM_EXTENT_TREE else list(inode.entries)
    if remains.damaged or not _maps(entries, pieces):
        remains.release()
        store_extents(repair, inode, pieces)
    else:
        inode.blocks = len(pieces) + len(remains.nodes)
    repair.put(inode)
    assert repair.table.type_of(INODE_FILE_INO) == TYPE_FILE


def _maps(entries: list[Entry], pieces: list[Piece]) -> bool:
    """Whether the extents map exactly these pieces of one block each."""
    at = 0
    for logical, value in entries:
        physical, length, flags = EXTENT.unpack(value)
        wanted = pieces[at : at + min(length, len(pieces) + 1)]
        if flags or [(p.logical, p.physical) for p in wanted] != [
            (logical + i, physical + i) for i in range(len(wanted))
        ]:
            return False
        if len(wanted) != length:
            return False
        at += length
    return at == len(pieces)
