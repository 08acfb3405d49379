"""The identity of an image, independent of its name: the number of a block device, or device and inode of a file."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple


class Identity(NamedTuple):
    """`device`: "major:minor" of the block device itself (`inode` is 0 then), or of the filesystem the file is on."""

    device: str
    inode: int


def identity_of(path: str | int) -> Identity:
    """The identity of the file at a path (links are followed) or on a descriptor. OSError."""
    found = os.stat(path)
    is_block_device = stat.S_ISBLK(found.st_mode)
    number = found.st_rdev if is_block_device else found.st_dev
    return Identity(f"{os.major(number)}:{os.minor(number)}", 0 if is_block_device else found.st_ino)
