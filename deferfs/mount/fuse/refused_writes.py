"""Telling those who go on writing to a full disk through a writeback cache.

The kernel takes what is written and hands it over later. When there is no space then, fsync(2) and close(2) report
it; a program that only writes would never hear of it, and write for ever. But the kernel asks for the attributes of a
file before each write(2) when those it has are not to be trusted any more. So after a refused WRITE they never are, and
who asks in the middle of a system call that makes the file longer gets ENOSPC, until there is more space than then.

FUSE does not say for which system call a GETATTR is. /proc/PID/syscall does; where it cannot be read, fsync and close
are what is left.

**Invariant:** only calls that write past the end of the file as we know it are refused: what has blocks already can be
overwritten on a full disk.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from deferfs.errors import FsError


class _Call(NamedTuple):
    """Which arguments of a system call that writes are the descriptor, the length and the offset (-1: it has none)."""

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
"""By machine and number of the call. What copy_file_range and splice write is not looked at."""


class RefusedWrites:
    """`available`: the files of one mount for which a WRITE found no space -> the blocks that were available then, too
    few or in the wrong places.
    """

    def __init__(self, *, proc: str = "/proc", machine: str = "") -> None:
        self.available: dict[int, int] = {}
        self._proc = proc
        self._calls = _CALLS.get(machine or os.uname().machine, {})

    def check(self, ino: int, size: int, available: int, pid: int) -> None:
        """FsError(ENOSPC) when thread `pid` is about to write to the inode past `size` bytes, while no more blocks are
        available than when it was refused.
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
