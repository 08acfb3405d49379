"""The system calls that Python does not wrap: mount, umount2, syncfs and one prctl.

ctypes lets go of the interpreter lock during a call, so that the event loop can answer the kernel meanwhile.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_SYNCHRONOUS: Final = 16
MS_REMOUNT: Final = 32
MS_DIRSYNC: Final = 128
MS_NOSYMFOLLOW: Final = 256
MS_NOATIME: Final = 1024
MS_NODIRATIME: Final = 2048
MS_POSIXACL: Final = 1 << 16
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24
MS_LAZYTIME: Final = 1 << 25

MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

_PR_SET_IO_FLUSHER: Final = 57

_libc: Final = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, path: str | None = None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2). OSError with the kernel's errno."""
    _checked(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            fstype.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(data),
        ),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2), never following a symbolic link. Blocks until the kernel has written its dirty pages."""
    _checked(_libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


def syncfs(fd: int) -> None:
    """syncfs(2): hand every dirty page of the filesystem that `fd` is on to that filesystem."""
    _checked(_libc.syncfs(fd))


def set_io_flusher() -> None:
    """Memory allocations of this thread, and of those it starts, never enter filesystem reclaim.

    Otherwise a page fault of the daemon could wait for the daemon. PermissionError without CAP_SYS_RESOURCE.
    """
    _checked(_libc.prctl(_PR_SET_IO_FLUSHER, ctypes.c_ulong(1), 0, 0, 0))
