"""Write everything of one mounted filesystem to its disk."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from deferfs.errors import DeferfsError


def sync_filesystem(root: Path) -> None:
    """Sync the filesystem at `root` to its disk. DeferfsError when that fails."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # syncfs writes dirty pages to the filesystem, but only fsync is passed on to a FUSE daemon
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeferfsError(f"cannot sync {root}: {error.strerror}") from error
