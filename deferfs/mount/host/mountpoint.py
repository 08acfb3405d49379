"""Preconditions of a mount: the mountpoint, this machine, this user. Checked before anything is changed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from typing import Final

from deferfs.errors import EnvironmentProblem, MountFailedError

FUSE_DEVICE: Final = "/dev/fuse"


def check_mountpoint(path: str) -> int:
    """The st_mode of the directory `path`; MountFailedError when nothing can be mounted there.

    A directory that is not empty is fine, as for any mount; a dead mount is not.
    """
    try:
        mode = os.stat(path).st_mode
        os.statvfs(path)  # not stat, which the kernel may answer from its cache for a dead mount
    except OSError as error:
        raise MountFailedError(_explain(path, error)) from error
    if not stat.S_ISDIR(mode):
        raise MountFailedError(f"{path}: not a directory; a filesystem is mounted on a directory")
    return mode


def _explain(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"{path}: no such directory; create it first"
    if is_dead(error):
        return f"{path}: a dead mount is still there (its daemon has ended); detach it first: deferfs umount {path}"
    return f"{path}: {error.strerror}"


def is_dead(error: OSError) -> bool:
    """Whether this error of a system call on a FUSE mount means that its daemon has ended."""
    return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)


def check_environment(*, fuse_device: str = FUSE_DEVICE, uid: int | None = None) -> None:
    """EnvironmentProblem when this machine has no FUSE, or this user cannot use it."""
    if not os.path.exists(fuse_device):
        raise EnvironmentProblem(f"{fuse_device} does not exist; load the module: modprobe fuse")
    if not os.access(fuse_device, os.R_OK | os.W_OK):
        raise EnvironmentProblem(f"{fuse_device} may not be opened by this user; mount as root, or chmod 666 it")
    if (os.geteuid() if uid is None else uid) != 0 and shutil.which("fusermount3") is None:
        raise EnvironmentProblem("mounting as an ordinary user needs fusermount3; install fuse3, or mount as root")
