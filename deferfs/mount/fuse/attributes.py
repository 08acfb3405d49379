"""Conversion of inode records to the attributes sent to the kernel, and of SETATTR requests to changes."""

from __future__ import annotations

import stat
from collections.abc import Container
from typing import Final

import pyfuse3

from deferfs.limits import RDEV_MAX
from deferfs.ondisk.inode import FLAG_PREALLOCATED, FLAG_TRUNCATING, Inode
from deferfs.volume.attributes import Statfs, atime_ns
from deferfs.volume.volume import Volume

_SECTOR_BYTES: Final = 512
"""The unit of st_blocks, whatever the block size."""
_SHRINKING: Final = FLAG_PREALLOCATED | FLAG_TRUNCATING
"""Flags of inodes whose blocks inodegc or a release will free without a request of the kernel."""


class Attributes:
    """Makes pyfuse3's attribute objects for one volume. Timeouts in seconds; 0 for inodes in `untrusted`, so that the
    kernel asks each time.
    """

    def __init__(
        self, volume: Volume, *, entry_timeout: float, attr_timeout: float, untrusted: Container[int] = ()
    ) -> None:
        self._volume = volume
        self._block_size = volume.store.fmt.block_size
        self._entry_timeout = entry_timeout
        self._attr_timeout = attr_timeout
        self._untrusted = untrusted

    def of(self, record: Inode) -> pyfuse3.EntryAttributes:
        """The attributes of an inode. The kernel may not cache them while st_blocks can change by itself.

        Size, blocks and mode were checked for plausibility when the record was read.
        """
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = record.ino
        entry.generation = record.generation
        entry.entry_timeout = self._entry_timeout
        changes = record.flags & _SHRINKING or record.ino in self._untrusted
        entry.attr_timeout = 0 if changes else self._attr_timeout
        entry.st_mode = record.mode
        entry.st_nlink = record.nlink
        entry.st_uid = record.uid
        entry.st_gid = record.gid
        entry.st_rdev = record.rdev & RDEV_MAX
        entry.st_size = record.size
        entry.st_blksize = self._block_size
        entry.st_blocks = record.blocks * self._block_size // _SECTOR_BYTES
        entry.st_atime_ns = atime_ns(self._volume, record)
        entry.st_mtime_ns = record.mtime
        entry.st_ctime_ns = record.ctime
        return entry

    def of_name(self, ino: int, file_type: int) -> pyfuse3.EntryAttributes:
        """For a directory entry without a usable inode: number and type from the entry, and an impossible size. The
        kernel then lists the name, creates no inode, and sends a FORGET at once (before Linux 5.5: after another
        LOOKUP, since the timeouts are 0).
        """
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = ino
        entry.generation = 0
        entry.entry_timeout = entry.attr_timeout = 0
        entry.st_mode = stat.S_IFMT(file_type << 12)
        entry.st_size = -1
        return entry

    def nothing(self) -> pyfuse3.EntryAttributes:
        """A negative entry, which the kernel may cache: names are created only through it."""
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = self._entry_timeout
        return entry


def statfs_data(found: Statfs) -> pyfuse3.StatvfsData:
    """statvfs(3), in filesystem blocks."""
    data = pyfuse3.StatvfsData()
    data.f_bsize = found.block_size
    data.f_frsize = found.block_size
    data.f_blocks = found.blocks
    data.f_bfree = found.free
    data.f_bavail = found.available
    data.f_files = found.files
    data.f_ffree = found.files_free
    data.f_favail = found.files_free
    data.f_namemax = found.name_max
    return data


def changes_of(attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> dict[str, int]:
    """The keyword arguments of `attributes.setattr`; times in ns."""
    candidates = (
        (fields.update_mode, "mode", attr.st_mode & 0o7777),
        (fields.update_uid, "uid", attr.st_uid),
        (fields.update_gid, "gid", attr.st_gid),
        (fields.update_atime, "atime_ns", attr.st_atime_ns),
        (fields.update_mtime, "mtime_ns", attr.st_mtime_ns),
        (fields.update_ctime, "ctime_ns", attr.st_ctime_ns),
    )
    return {name: value for wanted, name, value in candidates if wanted}
