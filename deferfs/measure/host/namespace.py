"""A mount namespace of our own: what is mounted in it is seen by no other process, and is gone with its last one."""

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
    """This thread, and the processes that it starts, in a mount namespace of their own for the length of the block.
    Mounts made before are seen in it. EnvironmentProblem without the right to make one.

    Where the root directory is no mount point (a chroot), the kernel lets the propagation of the mount that it is in be
    changed by no path: if that one is shared, what is mounted on it inside appears outside, too.
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
            # setns goes to the root directory of the namespace, also out of a chroot
            os.fchdir(root)
            os.chroot(".")
            os.chdir(directory)


def _opened(stack: contextlib.ExitStack, path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _call(function: str, *arguments: object, but: int = 0) -> None:
    """A system call; EnvironmentProblem when it fails, unless with the error `but`."""
    failed = getattr(_LIBC, function)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments))
    if failed and ctypes.get_errno() != but:
        raise EnvironmentProblem(
            f"no mount namespace can be made: {function}: {os.strerror(ctypes.get_errno())}; run as root"
        )
