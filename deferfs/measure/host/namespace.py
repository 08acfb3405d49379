"""A mount namespace of our own: its mounts are invisible to other processes, and vanish with its last process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deferfs.errors import EnvironmentProblem

CLONE_NEWNS: Final = 0x00020000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private_mounts() -> Iterator[None]:
    """Run the block with this thread, and the processes it starts, in a mount namespace of its own. Earlier mounts are
    visible in it. EnvironmentProblem without the privilege to create one.

    Where the root directory is no mountpoint (a chroot), no path gives access to the propagation of the mount that
    contains it: if that is shared, mounts made directly on it inside appear outside, too.
    """
    with contextlib.ExitStack() as stack:
        before, root = (_opened(stack, path) for path in ("/proc/self/ns/mnt", "/"))
        directory = Path.cwd()
        _call("unshare", CLONE_NEWNS)
        try:
            _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None, but=errno.EINVAL)
            yield
        finally:
            _call("setns", before, CLONE_NEWNS)
            # setns changes to the root directory of the namespace, even out of a chroot
            os.fchdir(root)
            os.chroot(".")
            os.chdir(directory)


def _opened(stack: contextlib.ExitStack, path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _call(function: str, *arguments: object, but: int = 0) -> None:
    """A system call; EnvironmentProblem when it fails with any error except `but`."""
    failed = getattr(_LIBC, function)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments))
    if failed and ctypes.get_errno() != but:
        raise EnvironmentProblem(
            f"no mount namespace can be made: {function}: {os.strerror(ctypes.get_errno())}; run as root"
        )
