"""What kind of metadata block some bytes are, by their magic."""

from __future__ import annotations

from typing import Final

from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.inode import MAGIC
from deferfs.ondisk.node import DirectoryNode, ExtentNode
from deferfs.ondisk.orphan import OrphanBlock
from deferfs.ondisk.xattr import XattrBlock

_KINDS: Final = {
    Bitmap.MAGIC: "bitmap",
    MAGIC: "inodes",
    ExtentNode.MAGIC: "extent node",
    DirectoryNode.MAGIC: "directory node",
    XattrBlock.MAGIC: "xattrs",
    OrphanBlock.MAGIC: "orphans",
}


def kind_of(data: bytes | None) -> str:
    """In a word or two."""
    return "unreadable" if data is None else _KINDS.get(data[4:8], "unknown")
