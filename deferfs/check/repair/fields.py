"""One inode by itself: the values that the fields of its record may have, and what replaces others."""

from __future__ import annotations

import stat
from typing import Final

from deferfs.check.records import FORMS, INTERNAL_FORMS, MODE_MAX, flags_known
from deferfs.limits import FILE_BYTES_MAX, RDEV_MAX
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_ENTRIES,
    FORM_NONE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    ROOT_INO,
    Inode,
)

_INTERNAL_MODE: Final = stat.S_IFREG | 0o600
"""The mode of the inode file and the orphan file."""


def blank(ino: int, generation: int = 0) -> Inode:
    """A free record."""
    return Inode(ino, 0, generation)


def mend_fields(inode: Inode) -> bool:
    """Make the fields of a record in use possible; False when the record cannot be kept.

    Other steps mend names, blocks and attributes.
    """
    inode.mode &= MODE_MAX
    forms = FORMS.get(stat.S_IFMT(inode.mode))
    if forms is None:
        return False
    if inode.form not in forms:
        if stat.S_ISREG(inode.mode) or stat.S_ISLNK(inode.mode):
            return False
        inode.set_entries(FORM_ENTRIES if stat.S_ISDIR(inode.mode) else FORM_NONE, ())
    inode.flags &= flags_known(inode.mode)
    if not (stat.S_ISCHR(inode.mode) or stat.S_ISBLK(inode.mode)):
        inode.rdev = 0
    inode.rdev &= RDEV_MAX
    if forms == (FORM_NONE,):
        inode.size = 0
    if stat.S_ISREG(inode.mode) and inode.form == FORM_NONE:
        inode.size = min(inode.size, FILE_BYTES_MAX)
    return True


def mend_reserved(inode: Inode, now_ns: int, directory_flags: int) -> bool:
    """Make a reserved record what it must be; whether the root directory had to be created anew, with
    `directory_flags`."""
    ino = inode.ino
    if ino == ROOT_INO:
        if stat.S_ISDIR(inode.mode):
            mend_fields(inode)
            inode.parent, inode.orphan_slot = ROOT_INO, 0
            return False
        _remake(inode, stat.S_IFDIR | 0o755, now_ns)
        inode.set_entries(FORM_ENTRIES, ())
        inode.parent, inode.flags = ROOT_INO, directory_flags
        return True
    if ino in (INODE_FILE_INO, ORPHAN_FILE_INO):
        if inode.mode != _INTERNAL_MODE or inode.form not in INTERNAL_FORMS:
            _remake(inode, _INTERNAL_MODE, now_ns)
            inode.set_entries(INTERNAL_FORMS[0], ())
        inode.nlink, inode.size, inode.orphan_slot = 1, 0, 0
        inode.flags &= flags_known(inode.mode)
        inode.rdev = inode.xattr_block = 0
        inode.xattrs = b""
        return False
    assert ino < FIRST_INO
    if inode.mode or inode.form or inode.xattr_block or inode.orphan_slot:
        _remake(inode, 0, 0)
    return False


def _remake(inode: Inode, mode: int, now_ns: int) -> None:
    inode.mode, inode.nlink, inode.uid, inode.gid = mode, 1 if mode else 0, 0, 0
    inode.flags = inode.size = inode.blocks = inode.rdev = inode.parent = 0
    inode.xattr_block = inode.orphan_slot = 0
    inode.xattrs = b""
    inode.set_entries(FORM_NONE, ())
    inode.atime = inode.mtime = inode.ctime = inode.crtime = now_ns
