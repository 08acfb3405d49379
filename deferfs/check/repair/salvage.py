"""Records with a wrong checksum: what may still be made of them.

A single wrong bit is corrected. After heavier damage, a record that fits the rest of the image in all that can be
compared is kept: its place, its blocks and how many they are, every key of its directory, every node of its tree. What
cannot be compared (owner, permissions, times, inline contents) may be wrong, and the report says so: there is no other
source. If it does not fit, the leaves of its tree, which name their owner, show at least what was in it.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import Final

from deferfs.check.context import Context
from deferfs.check.records import check_inode, check_special
from deferfs.check.repair.bits import correct_block
from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.fields import blank
from deferfs.check.repair.leaves import filed_under
from deferfs.check.repair.names import possible_name
from deferfs.check.report import Findings
from deferfs.check.trees import Tree
from deferfs.check.view import Visited
from deferfs.errors import CorruptionError
from deferfs.limits import LINKS_MAX
from deferfs.ondisk.directory import may_have_key, unpack_entry
from deferfs.ondisk.format import INODE_BYTES, Format
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_DIRECTORY_TREE,
    FORM_EXTENT_TREE,
    INLINE_BYTES,
    MAGIC,
    ROOT_INO,
    Inode,
)
from deferfs.ondisk.node import DirectoryNode, Node

_INO_OFFSET: Final = 8
"""Offset of the inode number in a record, in bytes."""
_INLINE_OFFSET: Final = INODE_BYTES - INLINE_BYTES
"""Offset of the inline area in a record, in bytes."""
_CRC: Final = struct.Struct("<I")
_INO: Final = struct.Struct("<Q")


def sound_record(repair: RepairContext, ino: int, address: int, raw: bytes) -> Inode | None:
    """The record of `ino`, a single wrong bit corrected; None when it is damaged, or that of another inode. It is for
    the caller to write it.
    """
    try:
        inode = Inode.decode(repair.fmt, address, raw)
    except CorruptionError:
        right = correct_block(repair.fmt, address, raw)
        if right is None:
            return None
        try:
            inode = Inode.decode(repair.fmt, address, right)
        except CorruptionError:
            return None
        if inode.ino == ino:
            repair.note(f"inode {ino}: one bit of its record was wrong, and is corrected", loses=False)
    else:
        if inode.ino == ino and inode.mode and inode.encode(repair.fmt, address) != raw:
            repair.note(f"inode {ino}: its record holds what its fields do not say; removed")
    return inode if inode.ino == ino else None


def plausible_record(repair: RepairContext, ino: int, address: int, raw: bytes) -> Inode | None:
    """The damaged record `raw` in the place of that of `ino`, if all that it says fits; None if not.

    Whether its blocks belong to other files, too, can only be decided after all files have been read.
    """
    if ino < FIRST_INO and ino != ROOT_INO:
        return None  # internal and unused inodes have fixed records: they are re-created
    sealed = _sealed(repair.fmt, ino, address, raw)
    try:
        inode = None if sealed is None else Inode.decode(repair.fmt, address, sealed)
        if inode is None or sealed is None or not _whole(repair.fmt, inode, address, sealed):
            return None
        if not _fits(repair, inode, inode.encode(repair.fmt, address), address):
            return None
    except CorruptionError:
        return None
    if stat.S_ISREG(inode.mode):
        inode.mode &= ~(stat.S_ISUID | stat.S_ISGID)  # damage must not grant privileges
    repair.note(f"inode {ino}: wrong checksum, but its record fits; kept: owner, mode, times, contents may be wrong")
    return inode


def _sealed(fmt: Format, ino: int, address: int, raw: bytes) -> bytes | None:
    """The record with a right checksum; None when it does not carry the number `ino`, and so may be anything."""
    if raw[_INO_OFFSET : _INO_OFFSET + _INO.size] != _INO.pack(ino):
        return None
    body = MAGIC + raw[4 + len(MAGIC) :]
    return _CRC.pack(fmt.checksum(address, body)) + body


def _whole(fmt: Format, inode: Inode, address: int, sealed: bytes) -> bool:
    """Whether the decoded inode accounts for all used bytes of the record; damage in unused ones is harmless."""
    end, xattrs = _INLINE_OFFSET + inode.data_bytes(), INODE_BYTES - len(inode.xattrs)
    used = inode.encode(fmt, address)
    return used[4:end] == sealed[4:end] and used[xattrs:] == sealed[xattrs:]


def _fits(repair: RepairContext, inode: Inode, sealed: bytes, address: int) -> bool:
    """Whether the check of this inode by itself would find nothing. CorruptionError."""
    findings = Findings()
    context = Context(repair.device, repair.superblock, findings, Visited(repair.superblock.blocks))
    if inode.mode == 0:
        return False  # free, or its mode is what was damaged
    if inode.ino == ROOT_INO:
        check_special(context, ROOT_INO, inode)
    held = check_inode(context, inode, address, sealed)
    if stat.S_ISDIR(inode.mode):
        return _directory_fits(repair, context, inode, held) and not findings.problems
    return held >= 0 and not findings.problems and inode.nlink <= LINKS_MAX and not inode.parent


def _directory_fits(repair: RepairContext, context: Context, inode: Inode, held: int) -> bool:
    """Whether every entry is filed under its own name, and there are as many entries and nodes as the record says."""
    entries = 0
    tree = Tree(context, DirectoryNode, inode.ino, inode.root)
    for key, value in _entries(tree, inode):
        _, _, name = unpack_entry(value)
        if not possible_name(name) or not may_have_key(repair.fmt, name, inode.flags, key):
            return False
        entries += 1
    nodes = tree.blocks if inode.form == FORM_DIRECTORY_TREE else 0
    return held >= 0 and tree.complete and inode.size == entries and inode.blocks == held + nodes


def _entries(tree: Tree[DirectoryNode], inode: Inode) -> Iterator[tuple[int, bytes]]:
    if inode.form != FORM_DIRECTORY_TREE:
        yield from inode.entries
        return
    for leaf in tree.leaves():
        yield from zip(leaf.keys, leaf.values, strict=True)


def give_block(repair: RepairContext, number: int, index: int, address: int) -> None:
    """Put a block of free records, at `address`, in the place of one of a chunk that is lost."""
    fmt, file = repair.fmt, repair.file
    first = number * fmt.inodes_per_chunk + index * fmt.inodes_per_block
    records = [blank(ino).encode(fmt, address) for ino in range(first, first + fmt.inodes_per_block)]
    repair.write(address, b"".join(records))
    blocks = [file.block(number, at) for at in range(fmt.chunk_blocks)]
    blocks[index] = address
    file.chunks[number], file.scattered[number] = blocks[0], blocks
    repair.lost_blocks.discard((number, index))


def record_from_leaf(repair: RepairContext, leaf: Node) -> None:
    """A record in the place of a lost one, for a tree of which a leaf has been found: a directory or file of root's,
    without a root node, so that the tree is rebuilt from its leaves. The first leaf shows which hashes a directory has.
    """
    ino, kind = leaf.owner, type(leaf)
    directory = kind is DirectoryNode
    inode = repair.inode(ino)
    if ino != ROOT_INO:
        inode = blank(ino, inode.generation)
        inode.mode = stat.S_IFDIR | 0o700 if directory else stat.S_IFREG | 0o600
        inode.nlink = 1  # it is not known to be deleted
        inode.atime = inode.mtime = inode.ctime = inode.crtime = repair.now_ns
    if directory:
        flags = [filed_under(repair.fmt, key, value) for key, value in zip(leaf.keys, leaf.values, strict=True)]
        inode.flags = next((found for found in flags if found is not None), repair.superblock.directory_flags)
    inode.set_tree(FORM_DIRECTORY_TREE if directory else FORM_EXTENT_TREE, 0)
    repair.put(inode)
    repair.table.enter(repair.table.slot(ino), inode)
    repair.damaged_trees[ino] = kind
    what = "directory" if directory else "file"
    repair.note(f"inode {ino}: its record cannot be read; rebuilt from its tree: a {what} of root's")
