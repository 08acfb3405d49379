"""Opening an image: at once, or after the daemon of a mount that has just been unmounted has finished."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from deferfs.device import Device, FileDevice
from deferfs.errors import ImageError, ImageInUseError
from deferfs.mount.control import client
from deferfs.mount.host.lock_holders import Holder, holders_of
from deferfs.ondisk.superblock import Superblock
from deferfs.store.io import run_job
from deferfs.store.recovery import read_superblock

LOCK_SECONDS_MAX: Final = 60.0
"""After a plain umount(8) the daemon still writes everything back; a lock held for longer has another reason."""
LOCK_POLL_SECONDS: Final = 0.05
"""Interval between attempts to lock the image."""
NOTICE_AFTER_SECONDS: Final = 1.0
"""A wait for the lock is reported after this time."""


def ignore_notice(_text: str) -> None:
    """Default of `notice`."""


def open_image(
    path: str,
    *,
    writable: bool,
    notice: Callable[[str], None] = ignore_notice,
    seconds: float = LOCK_SECONDS_MAX,
    is_wanted: Callable[[], bool] = lambda: True,
) -> FileDevice:
    """Open and lock the image at `path`.

    ImageInUseError at once when it is mounted (the text says where), or after `seconds` when another process
    holds it without a mount: most often a daemon about to end. `notice` is given a text that names the process waited
    for: at once when that only reads, since any process that may read the image can keep it locked, else after
    NOTICE_AFTER_SECONDS. The wait ends early when `is_wanted` returns False.
    """
    deadline = time.monotonic() + seconds
    notice_at: float | None = None
    while True:
        try:
            return FileDevice.open(path, writable=writable)
        except ImageInUseError as error:
            refuse_if_mounted(path)
            now = time.monotonic()
            if now >= deadline or not is_wanted():
                holders = _named(holders_of(path))
                if not holders:
                    raise  # the error may name another path by which the image is in use
                raise ImageInUseError(f"{path}: in use by {holders}; unmount it first, or end that process") from error
            if notice_at is None:
                reads = any(holder.shared for holder in holders_of(path))
                notice_at = now if reads else now + NOTICE_AFTER_SECONDS
            if now >= notice_at:
                holders = _named(holders_of(path))
                notice(f"{path}: waiting for {holders}, which holds a lock on it" if holders else f"{error}; waiting")
                notice_at = deadline
            time.sleep(LOCK_POLL_SECONDS)


def _named(holders: list[Holder]) -> str:
    """The processes in words; empty when they are hidden from this user, on another machine, or use the image by
    another name."""
    return ", ".join(map(str, holders))


def refuse_if_mounted(path: str) -> None:
    """ImageInUseError that names the mountpoint when the image at `path` is mounted in this namespace."""
    mount = client.find_image(path)
    if mount is not None:
        raise ImageInUseError(
            f"{path}: is mounted on {mount.mountpoint}; unmount it first: deferfs umount {mount.mountpoint}"
        )


def load_superblock(device: Device) -> Superblock:
    """The newest valid superblock. ImageError, with the path, when there is none."""
    try:
        return run_job(device, read_superblock(device.size))
    except ImageError as error:
        raise ImageError(f"{device.name}: {error}") from error


def peek_superblock(path: str) -> Superblock:
    """The superblock of an image that may be mounted: reads without a lock."""
    device = FileDevice.open(path, writable=False, lock=False)
    try:
        return load_superblock(device)
    finally:
        device.close()
