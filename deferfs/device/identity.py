"""What an image is, whatever its name: a block device by its number, a file by the device and inode it is on."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple


class Identity(NamedTuple):
    """`device`: "major:minor" of the block device itself (`inode` is 0 then), or of the filesystem the file is on."""

    device: str
    inode: int


def identity_of(path: str | int) -> Identity:
    """Of what is at a path (links are followed), or open on a descriptor. OSError."""
    found = os.stat(path)
    is_block_device = stat.S_ISBLK(found.st_mode)
    number = found.st_rdev if is_block_device else found.st_dev
    return Identity(f"{os.major(number)}:{os.minor(number)}", 0 if is_block_device else found.st_ino)
