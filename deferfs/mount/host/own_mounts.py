"""A filesystem's own mounts: found, opened and taken away without touching what others have put in their places.

A path says little: something may be mounted over it, it may have been moved with a directory above of it, the same
filesystem may be bound elsewhere. So the filesystem is known by its device number, which the kernel gives to one at a
time, and its mounts are looked up in the mount table when they are needed. No descriptor of one is kept: it would keep
umount(8) busy.
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
"""Between the two calls of an unmount others may look at the mount, which makes it start again."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why `mount` could not be taken away: `other` is mounted over it or inside of it, or else `error`."""

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
    """How `other` is in the way of `mount`."""
    if other.mountpoint == mount.mountpoint:
        return f"{other.fstype} is mounted over it"
    if mount.mountpoint.startswith(other.mountpoint.rstrip("/") + "/"):
        return f"{other.fstype} is mounted over it on {other.mountpoint}"
    return f"{other.fstype} is mounted in it on {other.mountpoint}"


class OwnMounts:
    """The mounts of the filesystem with this device number in this namespace.

    `is_alive` tells whether the kernel still has that filesystem: once it does not, the number may be another's.
    `privileged`: this process may call umount2 itself; otherwise fusermount3 does.
    """

    def __init__(self, device: str, is_alive: Callable[[], bool], *, privileged: bool) -> None:
        self.device = device
        self._is_alive = is_alive
        self._privileged = privileged

    def table(self) -> list[Mount]:
        """Those there are now: at first mounted, moved and bound ones."""
        return mounts_of(self.device)

    def open_one(self) -> int | None:
        """A descriptor that keeps the filesystem until it is closed; None when no mount can be reached by a path."""
        fd = open_first(self.table())
        if fd is not None and not self._is_alive():
            os.close(fd)
            return None
        return fd

    def unmount(self) -> list[Obstacle]:
        """Take away every mount that is not in use and has no other mount over or inside of it; what stays, and why.

        Blocks until the kernel has handed over its dirty pages.
        """
        return self._all(lambda mount: unmount(mount, privileged=self._privileged))

    def detach(self) -> list[Obstacle]:
        """As `unmount`, but of mounts that are in use, too. They stay usable for those who use them."""
        return self._all(lambda mount: detach(mount, privileged=self._privileged))

    def _all(self, take_away: Callable[[Mount], Obstacle | None]) -> list[Obstacle]:
        """A mount that is inside of another of ours goes first: so try again after each success."""
        while True:
            table = self.table()
            if not self._is_alive():
                return []
            obstacles = [obstacle for mount in reversed(table) if (obstacle := take_away(mount)) is not None]
            if not obstacles or len(obstacles) == len(table):
                return obstacles


def mounts_of(device: str) -> list[Mount]:
    """The mounts of the deferfs with this "major:minor" in this namespace."""
    return [mount for mount in mountinfo.read() if mount.device == device and mount.is_deferfs]


def open_first(mounts: list[Mount]) -> int | None:
    """A descriptor of the root of the first of them that a path leads to; None when none does."""
    for mount in mounts:
        try:
            fd = open_mount(mount)
        except OSError:
            continue
        if fd is not None:
            return fd
    return None


def open_mount(mount: Mount) -> int | None:
    """A descriptor of the root of `mount`, for reading; None when another is in its place. OSError."""
    looked_at = os.open(mount.mountpoint, os.O_PATH | os.O_CLOEXEC)
    try:
        if not _is_at(looked_at, mount):
            return None
        mode = os.fstat(looked_at).st_mode
        if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
            return None  # a bound pipe or device: opening that does something else
        return os.open(f"/proc/self/fd/{looked_at}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(looked_at)


def _is_at(fd: int, mount: Mount) -> bool:
    found = syscalls.place_of(fd)
    return found.device == mount.device and found.mount_id in (0, mount.id)


def unmount(mount: Mount, *, privileged: bool) -> Obstacle | None:
    """Take `mount` away, and only it; what keeps it. None also when it has gone already.

    umount2 takes a path, on which another mount may be by then. So it is called twice with MNT_EXPIRE: the first call
    only marks the mount that it finds, the second unmounts it if it is marked; the mount table tells in between which
    one that is.
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
    """Take `mount`, which may be in use, out of the tree. Not if another one is over or inside of it, for that would go
    with it.
    """
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
