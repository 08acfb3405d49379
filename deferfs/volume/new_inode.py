"""What a new inode is to be."""

from __future__ import annotations

from typing import Final, NamedTuple


class Credentials(NamedTuple):
    """Of the process that makes an inode: to whom it belongs, and which bits its mode may not have."""

    uid: int = 0
    gid: int = 0
    umask: int = 0


SUPERUSER: Final = Credentials()


class NewInode(NamedTuple):
    """`mode`: type (S_IFMT) and permissions as they were asked for; `rdev`: the device number of a device file."""

    mode: int
    maker: Credentials = SUPERUSER
    rdev: int = 0
