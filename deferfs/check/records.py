"""One inode by itself: type, form, inline area, size, blocks, extents, attributes."""

from __future__ import annotations

import stat
from typing import Final

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.extents import Mapping
from deferfs.check.xattrs import check_xattrs
from deferfs.limits import FILE_BYTES_MAX, RDEV_MAX, SYMLINK_BYTES_MAX
from deferfs.ondisk.inode import (
    FIRST_INO,
    FLAG_KEYS31,
    FLAG_PREALLOCATED,
    FLAG_TRUNCATING,
    FORM_BYTES,
    FORM_DIRECTORY_TREE,
    FORM_ENTRIES,
    FORM_EXTENT_TREE,
    FORM_EXTENTS,
    FORM_NONE,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
)

FORMS: Final = {
    stat.S_IFREG: (FORM_NONE, FORM_BYTES, FORM_EXTENTS, FORM_EXTENT_TREE),
    stat.S_IFDIR: (FORM_ENTRIES, FORM_DIRECTORY_TREE),
    stat.S_IFLNK: (FORM_BYTES, FORM_EXTENTS),
    stat.S_IFCHR: (FORM_NONE,),
    stat.S_IFBLK: (FORM_NONE,),
    stat.S_IFIFO: (FORM_NONE,),
    stat.S_IFSOCK: (FORM_NONE,),
}
"""File type -> data forms that it may have."""
INTERNAL_FORMS: Final = (FORM_EXTENTS, FORM_EXTENT_TREE)
"""Data forms of the inode file and the orphan file."""
_FLAGS: Final = FLAG_PREALLOCATED | FLAG_TRUNCATING
"""Inode flags of any file type."""
MODE_MAX: Final = 0o177777
"""The largest mode: file type and permissions have 16 bits."""


def flags_known(mode: int) -> int:
    """The flags that an inode of this mode may have."""
    return _FLAGS | FLAG_KEYS31 if stat.S_ISDIR(mode) else _FLAGS


def check_free_record(context: Context, inode: Inode) -> None:
    """A free record may remember a generation, but holds nothing."""
    held = (inode.nlink, inode.size, inode.blocks, inode.xattr_block, inode.orphan_slot, inode.form)
    if any(held) or inode.xattrs:
        text = f"inode {inode.ino}: free, but its record still holds something"
        context.findings.add(catalogue.INODE_NOT_EMPTY, text, ino=inode.ino)


def check_special(context: Context, ino: int, inode: Inode) -> None:
    """Inode 1 is the root directory, 2 and 3 are internal files, the others below FIRST_INO are
    never used.
    """
    if ino == ROOT_INO:
        right = stat.S_ISDIR(inode.mode) and inode.nlink >= 2 and inode.parent == ROOT_INO
    elif ROOT_INO < ino <= ORPHAN_FILE_INO:
        right = (
            inode.mode == stat.S_IFREG | 0o600
            and inode.nlink == 1
            and inode.size == 0
            and inode.form in INTERNAL_FORMS
            and not inode.xattr_block
            and not inode.xattrs
        )
    else:
        right = inode.mode == 0 and inode.form == FORM_NONE and not inode.xattr_block
    if not right or inode.orphan_slot:
        text = f"inode {ino}: reserved, but its record is that of something else"
        context.findings.add(catalogue.INODE_SPECIAL, text, ino=ino)


def check_inode(context: Context, inode: Inode, address: int, raw: bytes, mapping: Mapping | None = None) -> int:
    """Check an inode in use, `raw` in table block `address`, and claim its blocks. `mapping` is
    given when its extents have been walked already.

    Returns the blocks it was found to hold, without the nodes of a directory tree; -1 when damage
    hides some.
    """
    findings, ino = context.findings, inode.ino
    forms = FORMS.get(stat.S_IFMT(inode.mode))
    if forms is None or inode.mode > MODE_MAX:
        findings.add(catalogue.INODE_MODE, f"inode {ino}: mode {inode.mode:#o}", ino=ino)
    elif inode.form not in forms:
        text = f"inode {ino}: data form {inode.form} in an inode of mode {inode.mode:#o}"
        findings.add(catalogue.INODE_FORM, text, ino=ino)
    _check_fields(context, inode, address, raw)
    if mapping is None:
        mapping = Mapping(context, inode)
        mapping.walk()
    blocks, complete = mapping.blocks, mapping.complete
    if inode.xattrs or inode.xattr_block:
        chain, followed = check_xattrs(context, inode)
        blocks += chain
        complete = complete and followed
    if ino >= FIRST_INO and forms is not None:
        _check_size(context, inode, mapping)
    if not complete:
        context.complete = False
        return -1
    if inode.form != FORM_DIRECTORY_TREE and inode.blocks != blocks:
        # the nodes of a directory tree are counted by the pass that walks it
        report_blocks(context, inode, blocks)
    return blocks


def report_blocks(context: Context, inode: Inode, blocks: int) -> None:
    """The inode counts other blocks than the `blocks` that were found."""
    text = f"inode {inode.ino}: counts {inode.blocks} blocks, holds {blocks}"
    context.findings.add(catalogue.INODE_BLOCKS, text, ino=inode.ino)


def _check_fields(context: Context, inode: Inode, address: int, raw: bytes) -> None:
    findings, ino = context.findings, inode.ino
    if inode.encode(context.fmt, address) != raw:
        # lengths that do not fit the data, or bytes where none belong: the decoder ignores them
        text = f"inode {ino}: its inline area is not what its fields say"
        findings.add(catalogue.INODE_INLINE, text, ino=ino)
    if inode.nlink and inode.orphan_slot and ino >= FIRST_INO:
        text = f"inode {ino}: linked, but names orphan slot {inode.orphan_slot - 1}"
        findings.add(catalogue.ORPHAN_SLOT, text, ino=ino)
    if inode.flags & ~flags_known(inode.mode):
        findings.add(catalogue.INODE_FLAGS, f"inode {ino}: flags {inode.flags:#x}", ino=ino)
    elif inode.flags & FLAG_KEYS31 and not context.superblock.directory_flags & FLAG_KEYS31:
        text = f"inode {ino}: a directory with 31-bit keys, but the superblock lacks their feature flag"
        findings.add(catalogue.INODE_FEATURE, text, ino=ino)
    if inode.rdev and not (stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode)):
        findings.add(catalogue.INODE_RDEV, f"inode {ino}: device number {inode.rdev:#x}", ino=ino)
    elif inode.rdev > RDEV_MAX:
        findings.add(catalogue.INODE_DEVICE, f"inode {ino}: device number {inode.rdev:#x}", ino=ino)


def _check_size(context: Context, inode: Inode, mapping: Mapping) -> None:
    mode, ino = inode.mode, inode.ino
    if stat.S_ISREG(mode):
        wrong = inode.size > FILE_BYTES_MAX or inode.size < len(inode.inline)
        eof = -(-inode.size // context.fmt.block_size)
        # Preallocated blocks are unwritten; written ones would show their old data when EOF moves up again.
        if mapping.written_end > eof and not inode.flags & FLAG_TRUNCATING:
            text = f"inode {ino}: {mapping.written_end} blocks mapped, size {inode.size} bytes"
            context.findings.add(catalogue.EXTENT_PAST_EOF, text, ino=ino)
    elif stat.S_ISLNK(mode):
        wrong = not _symlink_whole(context, inode, mapping)
    elif stat.S_ISDIR(mode):
        return  # counted by the pass that reads directories
    else:
        wrong = inode.size != 0
    if wrong:
        context.findings.add(catalogue.INODE_SIZE, f"inode {ino}: size {inode.size}", ino=ino)


def _symlink_whole(context: Context, inode: Inode, mapping: Mapping) -> bool:
    """Whether a target of legal length is there completely. An orphan may have lost its target
    already.
    """
    if not inode.nlink:
        return inode.size <= SYMLINK_BYTES_MAX
    if inode.form == FORM_BYTES:
        whole = inode.size == len(inode.inline)
    else:
        eof = -(-inode.size // context.fmt.block_size)
        whole = mapping.written_end == mapping.end == eof and not mapping.holes
    return whole and 0 < inode.size <= SYMLINK_BYTES_MAX
