"""Reporting ENOSPC to programs that write through a writeback cache to a full disk.

The kernel accepts data and sends it later. If there is no space then, fsync(2) and close(2) report it; a program that
only writes would never get an error. But the kernel sends a GETATTR before each write(2) on a file whose attributes it
may not cache. So after a failed WRITE the timeout of the attributes is 0, and a GETATTR sent in the middle of a system
call that extends the file is answered with ENOSPC, until more space is available than at the failure.

FUSE does not tell which system call a GETATTR belongs to. /proc/PID/syscall does; where it cannot be read, only fsync
and close report the error.

**Invariant:** only calls that write past the end of the file, as the daemon knows it, are refused: allocated blocks can
be overwritten on a full disk.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from deferfs.errors import FsError


class _Call(NamedTuple):
    """Argument positions, in a system call that writes, of descriptor, length and offset (-1: none)."""

    descriptor: int
    length: int
    offset: int


_WRITE: Final = _Call(0, 2, -1)
_PWRITE: Final = _Call(0, 2, 3)
_WRITEV: Final = _Call(0, -1, -1)
_PWRITEV: Final = _Call(0, -1, 3)
_SENDFILE: Final = _Call(0, 3, -1)
_CALLS: Final[dict[str, dict[int, _Call]]] = {
    "x86_64": {1: _WRITE, 18: _PWRITE, 20: _WRITEV, 296: _PWRITEV, 40: _SENDFILE},
    "aarch64": {64: _WRITE, 68: _PWRITE, 66: _WRITEV, 70: _PWRITEV, 71: _SENDFILE},
}
"""By machine and system call number. copy_file_range and splice are not covered."""


class RefusedWrites:
    """`available`: files of one mount for which a WRITE found no space -> blocks available at that time, too few or in
    unusable places.
    """

    def __init__(self, *, proc: str = "/proc", machine: str = "") -> None:
        self.available: dict[int, int] = {}
        self._proc = proc
        self._calls = _CALLS.get(machine or os.uname().machine, {})

    def check(self, ino: int, size: int, available: int, pid: int) -> None:
        """FsError(ENOSPC) when thread `pid` is about to write to the inode past `size` bytes, and no more blocks are
        available than when the WRITE failed.
        """
        if available <= self.available.get(ino, -1) and self._grows(ino, size, pid):
            raise FsError(errno.ENOSPC)

    def _grows(self, ino: int, size: int, pid: int) -> bool:
        try:
            words = self._read(f"{pid}/syscall").split()
            call = self._calls.get(int(words[0]))
            if call is None:
                return False
            arguments = [int(word, 16) for word in words[1:7]]
            opened = dict(
                line.split(":", 1)
                for line in self._read(f"{pid}/fdinfo/{arguments[call.descriptor] & 0xFFFFFFFF}").splitlines()
                if ":" in line
            )
            if int(opened["ino"]) != ino:
                return False
            length = arguments[call.length] if call.length >= 0 else 1
            offset = arguments[call.offset] if call.offset >= 0 else int(opened["pos"])
            return bool(int(opened["flags"], 8) & os.O_APPEND) or offset + length > size
        except (OSError, ValueError, LookupError):
            return False

    def _read(self, path: str) -> str:
        with open(f"{self._proc}/{path}", encoding="ascii", errors="replace") as file:
            return file.read()
