"""Open files, by handle number.

**Invariant:** each holds an active reference to its inode until its RELEASE.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deferfs.errors import FsError

if TYPE_CHECKING:
    from deferfs.mount.fuse.anomalies import Anomalies
    from deferfs.ondisk.inode import Inode
    from deferfs.reclaim.inode import ActiveReference
    from deferfs.volume.volume import Volume


@dataclass(slots=True, frozen=True)
class Handle:
    """An open file. `sync`: opened with O_SYNC or O_DSYNC, so that each write is durable before its reply (a writeback
    cache sends FSYNCs instead). `quiet`: reads do not update the access time, because the kernel fills a page to be
    written, or because of O_NOATIME.
    """

    ino: int
    reference: ActiveReference
    sync: bool
    quiet: bool


class Handles:
    """The open files of one mount. Invalid handles from the kernel are counted in `anomalies`."""

    def __init__(self, volume: Volume, anomalies: Anomalies, *, writeback_cache: bool) -> None:
        self._volume = volume
        self._anomalies = anomalies
        self._writeback_cache = writeback_cache
        self._open: dict[int, Handle] = {}
        self._last = 0

    def open(self, record: Inode, flags: int) -> int:
        """A new handle, with these flags of open(2)."""
        self._last += 1
        self._open[self._last] = Handle(
            record.ino,
            self._volume.hold(record),
            bool(flags & (os.O_SYNC | os.O_DSYNC)) and not self._writeback_cache,
            bool(flags & os.O_NOATIME) or flags & os.O_ACCMODE == os.O_WRONLY,
        )
        return self._last

    def get(self, fh: int) -> Handle:
        """The open file. FsError(EBADF) when there is none."""
        handle = self._open.get(fh)
        if handle is None:
            self._anomalies.note("unknown_handle")
            raise FsError(errno.EBADF)
        return handle

    def close(self, fh: int) -> Handle | None:
        """Close a handle; the caller must release its reference. None when there is none."""
        handle = self._open.pop(fh, None)
        if handle is None:
            self._anomalies.note("release_unknown")
        return handle

    def inodes(self) -> list[int]:
        """The inodes with open handles, unordered, each once."""
        return list({handle.ino for handle in self._open.values()})
