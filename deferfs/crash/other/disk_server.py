"""A FUSE filesystem with one file, `disk`: writes go into memory, and with every flush into a log.

    python -m deferfs.crash.other.disk_server MOUNTPOINT BYTES LOG

The log is a sequence of records, each a header (kind, offset, length) and the bytes. A request is answered when it is
in the log: when an fsync has returned, the log contains everything that led to it.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import sys
from typing import BinaryIO, Final

import pyfuse3
import trio

HEADER: Final = struct.Struct("<cQQ")
WRITE: Final = b"W"
FLUSH: Final = b"F"
NAME: Final = b"disk"
_INODE: Final = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)


class DiskServer(pyfuse3.Operations):
    """The root directory and the disk, which the loop driver opens with direct IO, i.e. without a cache in between."""

    def __init__(self, size: int, log: BinaryIO) -> None:
        super().__init__()
        self._size = size
        # untouched pages of an anonymous mapping take no memory
        self._disk = mmap.mmap(-1, size)
        self._log = log

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | 0o600 if inode == _INODE else stat.S_IFDIR | 0o700)
        entry.st_size = self._size if inode == _INODE else 0
        entry.st_nlink = 1
        entry.attr_timeout = entry.entry_timeout = 3600
        return entry

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Finds the one file."""
        if name != NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(_INODE)

    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Size and mode."""
        return self._attributes(inode)

    async def open(self, inode: pyfuse3.InodeT, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open the disk, without a cache in the kernel."""
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode), direct_io=True)

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Current content."""
        return self._disk[off : off + size]

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Write, and record it."""
        self._disk[off : off + len(buf)] = bytes(buf)
        self._append(WRITE, off, bytes(buf))
        return len(buf)

    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """Sent by the loop driver for a flush."""
        self._append(FLUSH, 0, b"")

    def _append(self, kind: bytes, offset: int, data: bytes) -> None:
        self._log.write(HEADER.pack(kind, offset, len(data)))
        self._log.write(data)
        self._log.flush()


def main(mountpoint: str, size: int, log: str) -> None:
    """Serve until it is unmounted."""
    with open(log, "wb", buffering=1 << 20) as file:
        pyfuse3.init(DiskServer(size, file), mountpoint, {"fsname=deferfs-disk"})
        try:
            os.write(1, b"ready\n")
            trio.run(pyfuse3.main)
        finally:
            pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
