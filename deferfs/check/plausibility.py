"""How well a superblock fits the image: of several that disagree, the image itself shows which is right."""

from __future__ import annotations

import stat

from deferfs.device.base import Device
from deferfs.errors import CorruptionError, DeviceError, FsError, ImageError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.directory import may_have_key, unpack_entry
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import FORM_ENTRIES, INODE_FILE_INO, ROOT_INO, Inode
from deferfs.ondisk.superblock import Superblock


def plausibility(device: Device, superblock: Superblock) -> int:
    """How many of the structures are found where the superblock places them."""
    tests = (_bitmap_there, _inode_file_there, _root_names_fit, _areas_apart)
    points = 0
    for test in tests:
        try:
            points += test(device, superblock)
        except (CorruptionError, FsError, ImageError, DeviceError):
            continue
    return points


def _bitmap_there(device: Device, superblock: Superblock) -> bool:
    at, size = superblock.bitmap_address(0), superblock.block_size
    return Bitmap.decode(superblock.format, at, device.read(at * size, size)).owner == 0


def _record(device: Device, superblock: Superblock, ino: int) -> Inode:
    block, slot = divmod(ino, superblock.format.inodes_per_block)
    address = superblock.inode_root + block
    raw = device.read(address * superblock.block_size + slot * INODE_BYTES, INODE_BYTES)
    return Inode.decode(superblock.format, address, raw)


def _inode_file_there(device: Device, superblock: Superblock) -> bool:
    return _record(device, superblock, INODE_FILE_INO).ino == INODE_FILE_INO


def _root_names_fit(device: Device, superblock: Superblock) -> bool:
    root = _record(device, superblock, ROOT_INO)
    if root.form != FORM_ENTRIES or not root.entries:
        return stat.S_ISDIR(root.mode)
    key, value = root.entries[0]
    return may_have_key(superblock.format, unpack_entry(value)[2], root.flags, key)


def _areas_apart(device: Device, superblock: Superblock) -> bool:
    areas = sorted([(superblock.journal_start, superblock.journal_blocks), *superblock.bitmap_regions])
    areas = [(0, superblock.format.reserved_blocks), *areas]
    inode_root = superblock.inode_root
    apart = all(first + length <= areas[i + 1][0] for i, (first, length) in enumerate(areas[:-1]))
    return apart and not any(first <= inode_root < first + length for first, length in areas)
