"""What the beginning of a file or disk says it holds."""

from __future__ import annotations

from typing import Final

from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import MAGIC

SIGNATURE_BYTES: Final = 128 * 1024
"""Both superblocks, and where every common filesystem has its own."""
_FOREIGN: Final = (
    (0x438, b"\x53\xef", "an ext2, ext3 or ext4 filesystem"),
    (0, b"XFSB", "an XFS filesystem"),
    (0x10040, b"_BHRfS_M", "a btrfs filesystem"),
    (0x400, b"\x10\x20\xf5\xf2", "an f2fs filesystem"),
    (0, b"hsqs", "a squashfs filesystem"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (0x8001, b"CD001", "an ISO 9660 filesystem"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (512, b"EFI PART", "a partition table"),
    (4086, b"SWAPSPACE2", "swap space"),
    (510, b"\x55\xaa", "a partition table or FAT filesystem"),
)
"""(byte offset, magic, name) of other formats."""


def foreign_content(head: bytes) -> str | None:
    """What, other than deferfs, the first SIGNATURE_BYTES prove to be there; None when they prove nothing."""
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            return name
    return None


def identify(head: bytes) -> str | None:
    """What the first SIGNATURE_BYTES of an image look like; None when they are all zero."""
    for offset in SUPERBLOCK_OFFSETS:
        if head[offset + 4 : offset + 4 + len(MAGIC)] == MAGIC:
            return "a deferfs filesystem"
    return foreign_content(head) or ("data of an unknown kind" if any(head) else None)
