"""Steps 1 and 2: every record of the inode table, and every block that an inode holds.

Metadata proves its owner (its own address, its owner and a checksum are in it), so all of it is claimed before any
file data: a block that both claim stays with the metadata.
"""

from __future__ import annotations

from deferfs.check.repair.attributes import mend_xattrs
from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.fields import blank, mend_fields, mend_reserved
from deferfs.check.repair.salvage import plausible_record, sound_record
from deferfs.check.repair.trees import Remains
from deferfs.check.table import DAMAGED, FREE
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import (
    FIRST_INO,
    FLAG_KEYS31,
    FORM_DIRECTORY_TREE,
    FORM_EXTENT_TREE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    Inode,
)
from deferfs.ondisk.node import DirectoryNode, ExtentNode


def mend_records(repair: RepairContext) -> None:
    """Free every record that cannot be used, correct the others, and claim their metadata."""
    for number in repair.steps("records", sorted(repair.file.chunks)):
        for index in range(repair.fmt.chunk_blocks):
            _mend_block(repair, number, index)


def _mend_block(repair: RepairContext, number: int, index: int) -> None:
    fmt, table = repair.fmt, repair.table
    address = repair.file.block(number, index)
    data = repair.read(address) if repair.inside(address, 1) else None
    first = number * fmt.inodes_per_chunk + index * fmt.inodes_per_block
    base = table.bases[number] + index * fmt.inodes_per_block
    usable = [_usable(repair, first + slot, base + slot, address, slot, data) for slot in range(fmt.inodes_per_block)]
    repair.name(address)
    if number and not any(usable):
        # Nothing shows that this block is the table's: it is not written to, but replaced if the chunk is needed.
        repair.lost_blocks.add((number, index))
        if data is None or any(data):
            repair.note(
                f"inodes {first} to {first + len(usable) - 1}: no record can be read; freed, but for trees found"
            )
        table.types[base : base + len(usable)] = bytes([DAMAGED]) * len(usable)
        return
    repair.claim(address, 1, structure=True)
    for slot, inode in enumerate(usable):
        ino = first + slot
        lost = inode is None
        if inode is None:
            inode = blank(ino)
        if ino < FIRST_INO:
            if mend_reserved(inode, repair.now_ns, repair.superblock.directory_flags):
                repair.note("root directory: re-created")
        elif inode.mode == FREE:
            inode = blank(ino, inode.generation)
        else:
            inode = _mend_fields(repair, inode)
        if inode.mode:
            if inode.flags & FLAG_KEYS31:
                repair.superblock = repair.superblock.with_keys31()
            _claim_metadata(repair, inode)
            table.enter(base + slot, inode)
        repair.put(inode)
        if lost:
            table.types[base + slot] = DAMAGED  # until `find_lost_leaves` has looked for its tree


def _mend_fields(repair: RepairContext, inode: Inode) -> Inode:
    was = inode.copy()
    if not mend_fields(inode):
        repair.note(f"inode {inode.ino}: of an impossible type or form; freed")
        return blank(inode.ino, inode.generation)
    wrong = [name for name in ("mode", "form", "flags", "rdev", "size") if getattr(inode, name) != getattr(was, name)]
    if wrong:
        repair.note(f"inode {inode.ino}: {', '.join(wrong)} corrected")
    return inode


def _usable(repair: RepairContext, ino: int, slot: int, address: int, index: int, data: bytes | None) -> Inode | None:
    """Record `index` of the block, if it is sound, or damaged so that it can be used."""
    if data is None:
        return None
    raw = data[index * INODE_BYTES : (index + 1) * INODE_BYTES]
    inode = sound_record(repair, ino, address, raw)
    if inode is None:
        inode = plausible_record(repair, ino, address, raw)
        repair.doubtful[slot] = inode is not None
    return inode


def _claim_metadata(repair: RepairContext, inode: Inode) -> None:
    if inode.ino == ORPHAN_FILE_INO:
        return  # every orphan is released, and the table emptied without a look at it
    if inode.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
        kind = ExtentNode if inode.form == FORM_EXTENT_TREE else DirectoryNode
        remains = Remains(repair, kind, inode.ino, inode.root)
        for _ in remains.leaves():
            pass
        for address in remains.named:
            repair.name(address)
        for address in remains.nodes:
            repair.claim(address, 1, structure=True)
        if remains.damaged and inode.ino != INODE_FILE_INO:
            repair.damaged_trees[inode.ino] = kind
    if inode.ino != INODE_FILE_INO:
        mend_xattrs(repair, inode)
