"""A filesystem's own mounts: found, opened and unmounted without touching other mounts in their places.

A path is not reliable: another filesystem may be mounted over it, the mount may have been moved with a directory above
it, or bound elsewhere. So the filesystem is identified by its device number, which is unique while it exists, and its
mounts are looked up in the mount table when needed. No descriptor of a mount is kept: umount(8) would fail with EBUSY.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deferfs.mount.host import mountinfo, syscalls
from deferfs.mount.host.mountinfo import Mount

_EXPIRE_TRIES: Final = 16
"""Attempts of an unmount: another process that accesses the mount between its two calls makes it start again."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why `mount` could not be unmounted: `other` is mounted over it or inside it, or else `error`."""

    mount: Mount
    error: OSError
    other: Mount | None = None

    @property
    def is_busy(self) -> bool:
        """Whether processes use it."""
        return self.other is None and self.error.errno == errno.EBUSY

    def __str__(self) -> str:
        place = self.mount.mountpoint
        if self.other is None:
            return f"{place}: cannot be unmounted: {self.error.strerror}"
        return f"{place}: {in_words(self.mount, self.other)}; unmount that first: umount {self.other.mountpoint}"


def in_words(mount: Mount, other: Mount) -> str:
    """Where `other` is, relative to `mount`."""
    if other.mountpoint == mount.mountpoint:
        return f"{other.fstype} is mounted over it"
    if mount.mountpoint.startswith(other.mountpoint.rstrip("/") + "/"):
        return f"{other.fstype} is mounted over it on {other.mountpoint}"
    return f"{other.fstype} is mounted in it on {other.mountpoint}"


class OwnMounts:
    """The mounts, in this namespace, of the filesystem with this device number.

    `is_alive` tells whether the kernel still has that filesystem: if not, the number may have been reused.
    `privileged`: this process may call umount2 itself; otherwise fusermount3 does.
    """

    def __init__(self, device: str, is_alive: Callable[[], bool], *, privileged: bool) -> None:
        self.device = device
        self._is_alive = is_alive
        self._privileged = privileged

    def table(self) -> list[Mount]:
        """The current mounts: original, moved and bind mounts."""
        return mounts_of(self.device)

    def open_one(self) -> int | None:
        """A descriptor that keeps the filesystem in use until it is closed; None when no path leads to a mount."""
        fd = open_first(self.table())
        if fd is not None and not self._is_alive():
            os.close(fd)
            return None
        return fd

    def unmount(self) -> list[Obstacle]:
        """Unmount every mount that is not in use and has no other mount over or inside it; returns the rest, and why.

        Blocks until the kernel has written back its dirty pages.
        """
        return self._all(lambda mount: unmount(mount, privileged=self._privileged))

    def detach(self) -> list[Obstacle]:
        """As `unmount`, but detaches mounts in use as well. Processes that use them can continue to do so."""
        return self._all(lambda mount: detach(mount, privileged=self._privileged))

    def _all(self, take_away: Callable[[Mount], Obstacle | None]) -> list[Obstacle]:
        """Repeat until nothing more can be unmounted: a mount inside another of ours has to go first."""
        while True:
            table = self.table()
            if not self._is_alive():
                return []
            obstacles = [obstacle for mount in reversed(table) if (obstacle := take_away(mount)) is not None]
            if not obstacles or len(obstacles) == len(table):
                return obstacles


def mounts_of(device: str) -> list[Mount]:
    """The mounts, in this namespace, of the deferfs with this "major:minor"."""
    return [mount for mount in mountinfo.read() if mount.device == device and mount.is_deferfs]


def open_first(mounts: list[Mount]) -> int | None:
    """A descriptor of the root of the first mount that a path leads to; None when there is none."""
    for mount in mounts:
        try:
            fd = open_mount(mount)
        except OSError:
            continue
        if fd is not None:
            return fd
    return None


def open_mount(mount: Mount) -> int | None:
    """A read-only descriptor of the root of `mount`; None when another mount is in its place. OSError."""
    looked_at = os.open(mount.mountpoint, os.O_PATH | os.O_CLOEXEC)
    try:
        if not _is_at(looked_at, mount):
            return None
        mode = os.fstat(looked_at).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return None  # a bind mount of a FIFO or device: opening it would have side effects
        return os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(looked_at)


def _is_at(fd: int, mount: Mount) -> bool:
    found = syscalls.mount_identity(fd)
    return found.device == mount.device and found.mount_id in (0, mount.id)


def unmount(mount: Mount, *, privileged: bool) -> Obstacle | None:
    """Unmount `mount`, and only it; returns what prevents that. None also when it is gone already.

    umount2 takes a path, to which another mount may have been added meanwhile. So it is called twice with MNT_EXPIRE:
    the first call only marks the mount that it finds, and the second unmounts it if it is marked; in between, the mount
    table shows which one that is.
    """
    for _ in range(_EXPIRE_TRIES):
        obstacle = _find_obstacle(mount)
        if obstacle is not None or not _is_there(mount):
            return obstacle
        try:
            if not privileged:
                _unmount_by_helper(mount)
                return None
            _mark(mount)
            obstacle = _find_obstacle(mount)
            if obstacle is not None:
                return obstacle
            syscalls.umount(mount.mountpoint, syscalls.MNT_EXPIRE)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            return Obstacle(mount, error) if _is_there(mount) else None
        return None
    return Obstacle(mount, _error(errno.EBUSY))


def _mark(mount: Mount) -> None:
    try:
        syscalls.umount(mount.mountpoint, syscalls.MNT_EXPIRE)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise


def detach(mount: Mount, *, privileged: bool) -> Obstacle | None:
    """Detach `mount`, even in use. Not if another mount is over or inside it, as that would be detached with it."""
    obstacle = _find_obstacle(mount)
    if obstacle is not None or not _is_there(mount):
        return obstacle
    try:
        if privileged:
            syscalls.umount(mount.mountpoint, syscalls.MNT_DETACH)
        else:
            _unmount_by_helper(mount, "-z")
    except OSError as error:
        return Obstacle(mount, error) if _is_there(mount) else None
    return None


def _is_there(mount: Mount) -> bool:
    return any(other.id == mount.id and other.device == mount.device for other in mountinfo.read())


def _find_obstacle(mount: Mount) -> Obstacle | None:
    other = mountinfo.in_the_way(mount, mountinfo.read())
    return None if other is None else Obstacle(mount, _error(errno.EBUSY), other)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _unmount_by_helper(mount: Mount, *flags: str) -> None:
    command = ["fusermount3", "-u", *flags, "--", mount.mountpoint]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=False)
    except FileNotFoundError as error:
        raise OSError(errno.ENOENT, "needs fusermount3 (install fuse3), or root", mount.mountpoint) from error
    if done.returncode != 0:
        if "busy" in done.stderr.lower():
            raise _error(errno.EBUSY)
        reason = done.stderr.strip().splitlines()[-1:] or ["fusermount3 failed"]
        raise OSError(errno.EINVAL, reason[0].removeprefix("fusermount3: "), mount.mountpoint)
