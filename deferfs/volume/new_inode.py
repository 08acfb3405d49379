"""Parameters of a new inode."""

from __future__ import annotations

from typing import Final, NamedTuple


class Credentials(NamedTuple):
    """Owner, group and umask of the process that creates an inode."""

    uid: int = 0
    gid: int = 0
    umask: int = 0


SUPERUSER: Final = Credentials()


class NewInode(NamedTuple):
    """`mode`: type (S_IFMT) and requested permissions; `rdev`: the device number of a device file."""

    mode: int
    maker: Credentials = SUPERUSER
    rdev: int = 0
