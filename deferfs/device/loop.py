"""Loop devices: the file behind one, and the ones over a file.

An image opened both as a file and by a loop device would have two writers with separate caches.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from deferfs.device.identity import Identity, identity_of

_LOOP_MAJOR: Final = 7
"""From Documentation/admin-guide/devices.txt."""
_LOOP_GET_STATUS64: Final = 0x4C05
"""The request of ioctl(2), from <linux/loop.h>."""
_LOOP_INFO64: Final = struct.Struct("=5Q")
"""The head of struct loop_info64 of <linux/loop.h>: lo_device, lo_inode, lo_rdevice, lo_offset, lo_sizelimit."""
_LOOP_INFO64_BYTES: Final = 232
"""Size of struct loop_info64."""
_DELETED: Final = " (deleted)"
"""What sysfs appends to the path of a deleted file."""


@dataclass(frozen=True, slots=True)
class Backing:
    """The part of a file that a loop device exposes: `length` bytes (0: to the end) from `offset`. `path` is its name
    at the time of attaching; `image` identifies it."""

    image: Identity
    path: str
    offset: int
    length: int


def backing_of(fd: int) -> Backing | None:
    """The file behind the block device open on `fd`; None when it is no loop device, or an unattached one."""
    number = os.fstat(fd).st_rdev
    if os.major(number) != _LOOP_MAJOR:
        return None
    try:
        answer = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64_BYTES))
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    device, inode, block_device, offset, length = _LOOP_INFO64.unpack_from(answer)
    held = block_device or device
    image = Identity(f"{os.major(held)}:{os.minor(held)}", 0 if block_device else inode)
    return Backing(image, _backing_path(number), offset, length)


def _backing_path(number: int) -> str:
    """The path in sysfs; for a file outside this mount namespace it may lead nowhere or to another file: compare."""
    try:
        with open(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/loop/backing_file", "rb") as file:
            return os.fsdecode(file.read().removesuffix(b"\n")).removesuffix(_DELETED)
    except OSError:
        return ""


def open_backing(backing: Backing, *, writable: bool) -> int | None:
    """A descriptor of the file; None when its path no longer leads to it: no other process can open it by path then."""
    try:
        fd = os.open(backing.path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if identity_of(fd) == backing.image:
        return fd
    os.close(fd)
    return None


def loops_over(image: Identity) -> Iterator[str]:
    """The paths of the loop devices over an image file or block device, as far as this user may query them."""
    return (path for path, backing in attached_loops() if backing.image == image)


def attached_loops() -> Iterator[tuple[str, Backing]]:
    """The paths of all attached loop devices, with their files, as far as this user may query them."""
    try:
        names = os.listdir("/sys/block")
    except OSError:
        return
    for name in sorted(names):
        if not (name.startswith("loop") and os.path.isdir(f"/sys/block/{name}/loop")):
            continue
        path = f"/dev/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            backing = backing_of(fd)
        except OSError:
            continue
        finally:
            os.close(fd)
        if backing is not None:
            yield path, backing


def is_locked(image: Identity) -> bool:
    """Whether a visible process holds a write lock on the file: /proc/locks."""
    major, _, minor = image.device.partition(":")
    wanted = f"{int(major):02x}:{int(minor):02x}:{image.inode}"
    with open("/proc/locks", encoding="ascii", errors="replace") as file:
        return any(wanted in line.split() and " WRITE " in line for line in file)
