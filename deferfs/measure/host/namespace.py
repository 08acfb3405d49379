"""A mount namespace of our own: what is mounted in it is seen by no other process, and is gone with its last one."""

from __future__ import annotations

import contextlib
import ctypes
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
    """
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = Path.cwd()
    try:
        _call("unshare", CLONE_NEWNS)
        try:
            _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
            yield
        finally:
            _call("setns", before, CLONE_NEWNS)
            os.chdir(directory)  # setns goes to the root directory
    finally:
        os.close(before)


def _call(function: str, *arguments: object) -> None:
    if getattr(_LIBC, function)(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments)):
        raise EnvironmentProblem(
            f"no mount namespace can be made: {function}: {os.strerror(ctypes.get_errno())}; run as root"
        )
