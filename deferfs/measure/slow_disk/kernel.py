"""The system calls of the slow disk that Python does not wrap: a FUSE mount that is not in the file tree, a loop device
that detaches itself, and the process attributes of the server.

Numbers are from <linux/mount.h>, <linux/loop.h>, <linux/prctl.h> and <asm/unistd.h>, the same on all processors that
Python runs on.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

LOOP_CONTROL: Final = "/dev/loop-control"
FUSE_DEVICE: Final = "/dev/fuse"

_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_SET_STRING: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
_FSMOUNT_CLOEXEC: Final = 1
_MOUNT_ATTRIBUTES: Final = 0x2 | 0x4 | 0x8
"""MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC."""

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_AUTOCLEAR: Final = 4
_LO_FLAGS_DIRECT_IO: Final = 16
_LOOP_CONFIG: Final = struct.Struct("=II 52x I 176x 64x")
"""struct loop_config: fd, block_size, struct loop_info64 (of which only lo_flags is set), reserved."""
_LOOP_ATTEMPTS: Final = 50
"""Attempts to get a free loop device: another process may take it between the question and the attach."""

_PR_SET_TIMERSLACK: Final = 29
_PR_SET_IO_FLUSHER: Final = 57
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    words = (ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments)
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def fuse_context() -> int:
    """A context for a new FUSE filesystem: the first step that needs privileges. Raises OSError."""
    return _syscall(_SYS_FSOPEN, b"fuse", _FSOPEN_CLOEXEC)


def fuse_mount(fuse: int, source: str) -> int:
    """A FUSE filesystem served through `fuse` (an open /dev/fuse): a descriptor of its root directory.

    It is not attached to the file tree: only processes with a descriptor can use it, and it ends when the last one is
    closed.
    """
    context = fuse_context()
    try:
        options = {"source": source, "fd": str(fuse), "rootmode": "40700", "user_id": "0", "group_id": "0"}
        for key, value in options.items():
            _syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0)
        _syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, _MOUNT_ATTRIBUTES)
    finally:
        os.close(context)


def attach_loop(file: int) -> tuple[Path, int]:
    """A loop device with direct IO over an open file: its path, and a descriptor that keeps it. The kernel detaches it
    with its last descriptor and mount. Raises OSError."""
    for _ in range(_LOOP_ATTEMPTS):
        control = os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
        finally:
            os.close(control)
        device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(file, 0, _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO))
            # read-only: some kernels forbid to mount a device that is open for writing
            return path, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:  # EBUSY: another process has taken this device
                raise
        finally:
            os.close(device)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), LOOP_CONTROL)


def has_direct_io(device: Path) -> bool:
    """Whether a loop device bypasses the page cache of the file behind it."""
    return Path(f"/sys/block/{device.name}/loop/dio").read_text().strip() == "1"


def is_rotational(device: Path) -> bool:
    """Whether the kernel reports the device as rotational."""
    return Path(f"/sys/block/{device.name}/queue/rotational").read_text().strip() == "1"


def set_rotational(device: Path, rotational: bool) -> None:
    """Set what the kernel reports to filesystems. It stops the queue of the device meanwhile."""
    Path(f"/sys/block/{device.name}/queue/rotational").write_text("1" if rotational else "0")


def become_a_disk() -> None:
    """Prepare this process to serve a disk below a filesystem. Threads started later inherit the settings; those that
    the kernel refuses are skipped.

    Memory reclaim waits for this process, so its own allocations must not enter reclaim that writes
    (PR_SET_IO_FLUSHER), and its memory is locked. Its timer slack is minimal, as the kernel may otherwise delay
    wake-ups by 50 us to batch them. And a disk does not wait for a processor: it has the lowest real-time priority,
    above all other processes; it sleeps most of the time.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))
    _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    _libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
