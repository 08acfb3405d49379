"""Other files and devices with the same bytes: an image file, the loop devices over it, the file behind a loop device.

Opening one of them locks the others as well. Every opener locks the bytes of the underlying file (a record lock on the
range, as two partitions of one disk image are two images), and a writer of a file claims the loop devices over it.
"""

from __future__ import annotations

import errno
import os

from deferfs.device.identity import identity_of
from deferfs.device.loop import backing_of, is_locked, loops_over, open_backing
from deferfs.device.record_lock import HELD_BY_OTHERS, lock_range
from deferfs.errors import ImageInUseError


def hold_relatives(fd: int, path: str, *, exclusive: bool, is_block_device: bool) -> list[int]:
    """Lock the other files and devices with the bytes of the image open on `fd`. Returns descriptors that hold the
    locks until they are closed. ImageInUseError, which names the other file or device, when another process uses it.
    """
    held: list[int] = []
    try:
        if is_block_device:
            _hold_files_behind(fd, path, held, exclusive=exclusive)
        else:
            _lock_bytes(fd, 0, 0, path, path, exclusive=exclusive)
            if exclusive:
                _claim_loops(fd, path, held)
    except BaseException:
        for other in held:
            os.close(other)
        raise
    return held


def _hold_files_behind(fd: int, path: str, held: list[int], *, exclusive: bool) -> None:
    """Lock the files behind a loop device, which may be stacked."""
    offset, length = 0, 0
    while (backing := backing_of(fd)) is not None:
        length = length or backing.length
        offset += backing.offset
        found = open_backing(backing, writable=exclusive)
        if found is None:  # deleted: only a process that has it open already can use it
            if is_locked(backing.image):
                raise _in_use(path, f"the file behind it, {backing.path}, is")
            return
        held.append(found)
        fd = found
        _lock_bytes(fd, offset, length, path, backing.path, exclusive=exclusive)


def _lock_bytes(fd: int, offset: int, length: int, path: str, locked: str, *, exclusive: bool) -> None:
    try:
        lock_range(fd, offset, length, exclusive=exclusive)
    except OSError as error:
        if error.errno in HELD_BY_OTHERS:
            what = "a loop device over it is" if path == locked else f"the file behind it, {locked}, is"
            raise _in_use(path, what) from error
        # a filesystem without record locks: its files are still locked by flock


def _claim_loops(fd: int, path: str, held: list[int]) -> None:
    for loop in loops_over(identity_of(fd)):
        try:
            held.append(os.open(loop, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _in_use(path, f"{loop}, a loop device over it, is") from error


def _in_use(path: str, what: str) -> ImageInUseError:
    return ImageInUseError(f"{path}: {what} in use by another process; unmount that first (deferfs umount)")
