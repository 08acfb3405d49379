"""System calls that Python does not wrap, or not in every build: mount, umount2, statx, syncfs, unshare, memfd_create
and one prctl.

ctypes releases the interpreter lock during a call, so that the event loop can answer the kernel meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

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
MS_REC: Final = 1 << 14
MS_POSIXACL: Final = 1 << 16
MS_SLAVE: Final = 1 << 19
MS_RELATIME: Final = 1 << 21
MS_STRICTATIME: Final = 1 << 24
MS_LAZYTIME: Final = 1 << 25

MNT_DETACH: Final = 2
MNT_EXPIRE: Final = 4
UMOUNT_NOFOLLOW: Final = 8

_CLONE_NEWNS: Final = 0x20000
_AT_FDCWD: Final = -100
_AT_STATX_DONT_SYNC: Final = 0x4000
_AT_EMPTY_PATH: Final = 0x1000
_STATX_MNT_ID: Final = 0x1000
_STATX_MNT_ID_UNIQUE: Final = 0x4000
_STATX_BYTES: Final = 256
_STATX_DEVICE: Final = struct.Struct("=IIQ")
"""Part of struct statx (<linux/stat.h>) from byte 136: stx_dev_major, stx_dev_minor, stx_mnt_id."""
_STATX_DEVICE_OFFSET: Final = 136

_PR_SET_IO_FLUSHER: Final = 57

_MFD_CLOEXEC: Final = 1
_MFD_NOEXEC_SEAL: Final = 8

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
    """umount2(2), never following a symbolic link. Blocks until the kernel has written back its dirty pages."""
    _checked(_libc.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


class MountIdentity(NamedTuple):
    """Target of a path or descriptor: the "major:minor" of the filesystem, and the mount's id (0: unknown)."""

    device: str
    mount_id: int


def mount_identity(target: str | int, *, unique: bool = False) -> MountIdentity:
    """statx(2) of a path (links are followed) or descriptor. OSError.

    The kernel answers from its cache without a request to a FUSE daemon, so it does no harm if that is dead, stuck, or
    this very process. `unique` asks for the id that is never reused (Linux 6.8; before, the id is 0); otherwise the id
    is the one in the mount table.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    at, path = (target, "") if isinstance(target, int) else (_AT_FDCWD, target)
    flags = _AT_STATX_DONT_SYNC | (_AT_EMPTY_PATH if isinstance(target, int) else 0)
    # With an empty mask, FUSE answers every user.
    mask = _STATX_MNT_ID_UNIQUE if unique else 0
    _checked(_libc.statx(at, os.fsencode(path), flags, mask, buffer), path or None)
    major, minor, mount_id = _STATX_DEVICE.unpack_from(buffer, _STATX_DEVICE_OFFSET)
    told: int = struct.unpack_from("=I", buffer)[0]
    if not told & (_STATX_MNT_ID_UNIQUE if unique else _STATX_MNT_ID):
        mount_id = 0
    return MountIdentity(f"{major}:{minor}", mount_id)


def leave_mount_namespace() -> None:
    """Give this process and its children a mount namespace of their own: mounts made outside appear in it, but those
    made inside do not appear outside. PermissionError without CAP_SYS_ADMIN.

    Where the root directory is no mountpoint (a chroot), no path gives access to the propagation of the mount that
    contains it: mounts made directly on that one still propagate.
    """
    _checked(_libc.unshare(_CLONE_NEWNS))
    try:
        mount("none", "/", "none", MS_REC | MS_SLAVE, "")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def syncfs(fd: int) -> None:
    """syncfs(2): write back all dirty pages of the filesystem that contains `fd`."""
    _checked(_libc.syncfs(fd))


def memory_file(name: str) -> int:
    """memfd_create(2): a descriptor of an unlinked file in memory; `name` is for /proc. OSError; ENOSYS where the C
    library lacks it (some builds of Python lack os.memfd_create although the system has it)."""
    if not hasattr(_libc, "memfd_create"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fd = _memory_file(name, _MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    if fd < 0 and ctypes.get_errno() == errno.EINVAL:
        fd = _memory_file(name, _MFD_CLOEXEC)  # before Linux 6.3
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def _memory_file(name: str, flags: int) -> int:
    fd: int = _libc.memfd_create(os.fsencode(name), ctypes.c_uint(flags))
    return fd


def set_io_flusher() -> None:
    """PR_SET_IO_FLUSHER: memory allocations of this thread and its children never enter filesystem reclaim.

    Otherwise a page fault of the daemon could wait for the daemon. PermissionError without CAP_SYS_RESOURCE.
    """
    _checked(_libc.prctl(_PR_SET_IO_FLUSHER, ctypes.c_ulong(1), 0, 0, 0))
