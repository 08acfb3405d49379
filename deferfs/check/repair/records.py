"""Steps 1 and 2: every record of the inode table, and every block that an inode holds.

Metadata proves whose it is (its own address, its owner and a checksum are in it), so all of it is claimed before any
file data: of a block claimed by both, the metadata keeps it.
"""

from __future__ import annotations

from deferfs.check.repair.attributes import mend_xattrs
from deferfs.check.repair.bench import Bench
from deferfs.check.repair.fields import blank, mend_fields, mend_reserved
from deferfs.check.repair.trees import Remains
from deferfs.check.table import FREE
from deferfs.errors import CorruptionError
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_DIRECTORY_TREE,
    FORM_EXTENT_TREE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    Inode,
)
from deferfs.ondisk.node import DirectoryNode, ExtentNode


def mend_records(bench: Bench) -> None:
    """Free every record that is not sound, mend the others, and claim their metadata."""
    for number in bench.steps("records", sorted(bench.file.chunks)):
        for index in range(bench.fmt.chunk_blocks):
            _mend_block(bench, number, index)


def _mend_block(bench: Bench, number: int, index: int) -> None:
    fmt, table = bench.fmt, bench.table
    address = bench.file.block(number, index)
    data = bench.read(address) if bench.inside(address, 1) else None
    first = number * fmt.inodes_per_chunk + index * fmt.inodes_per_block
    sound = [_decode(bench, first + slot, address, slot, data) for slot in range(fmt.inodes_per_block)]
    if number and not any(sound):
        # Nothing shows that this block is the table's: it is not written to, but replaced if the chunk is needed.
        bench.lost_blocks.add((number, index))
        if data is not None and any(data):
            bench.note(f"inodes {first} to {first + len(sound) - 1}: no record can be read; freed")
        return
    bench.claim(address, 1, structure=True)
    base = table.bases[number] + index * fmt.inodes_per_block
    for slot, inode in enumerate(sound):
        ino = first + slot
        if inode is None:
            bench.note(f"inode {ino}: its record cannot be read; freed")
            inode = blank(ino)
        if ino < FIRST_INO:
            if mend_reserved(inode, bench.now_ns):
                bench.note("root directory: made anew")
        elif inode.mode == FREE:
            inode = blank(ino, inode.generation)
        elif not mend_fields(inode):
            bench.note(f"inode {ino}: of an impossible type or form; freed")
            inode = blank(ino, inode.generation)
        if inode.mode:
            _claim_metadata(bench, inode)
            table.enter(base + slot, inode)
        bench.put(inode)


def _decode(bench: Bench, ino: int, address: int, slot: int, data: bytes | None) -> Inode | None:
    if data is None:
        return None
    try:
        inode = Inode.decode(bench.fmt, address, data[slot * INODE_BYTES : (slot + 1) * INODE_BYTES])
    except CorruptionError:
        return None
    return inode if inode.ino == ino else None


def _claim_metadata(bench: Bench, inode: Inode) -> None:
    if inode.ino == ORPHAN_FILE_INO:
        return  # every orphan is released, and the table emptied
    if inode.form in (FORM_EXTENT_TREE, FORM_DIRECTORY_TREE):
        kind = ExtentNode if inode.form == FORM_EXTENT_TREE else DirectoryNode
        remains = Remains(bench, kind, inode.ino, inode.root)
        for _ in remains.leaves():
            pass
        for address in remains.nodes:
            bench.claim(address, 1, structure=True)
        if remains.damaged and inode.ino != INODE_FILE_INO:
            bench.damaged_trees[inode.ino] = kind
    if inode.ino != INODE_FILE_INO:
        mend_xattrs(bench, inode)
