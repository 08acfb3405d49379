"""Record locks of an open file description (fcntl(2), F_OFD_SETLK), which Python does not wrap."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Final

_FLOCK: Final = struct.Struct("hhqqi4x")
"""struct flock of fcntl(2): type, whence, start, length (0: to the end), pid."""
HELD_BY_OTHERS: Final = (errno.EAGAIN, errno.EACCES)
"""The errno of a lock that conflicts with one of another open file description; also of flock(2)."""


def lock_range(fd: int, start: int, length: int, *, exclusive: bool) -> None:
    """Lock `length` bytes from `start` on (0: to the end of the file and beyond), without waiting. OSError."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request(start, length, exclusive=exclusive))


def request(start: int, length: int, *, exclusive: bool) -> bytes:
    """The argument of fcntl(2) for this lock."""
    return _FLOCK.pack(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
