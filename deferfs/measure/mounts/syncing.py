"""Bring everything of one mounted filesystem to its disk."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from deferfs.errors import DeferfsError


def sync_filesystem(root: Path) -> None:
    """What the filesystem at `root` has in memory alone is on its disk afterwards. DeferfsError when it cannot."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # dirty pages reach the filesystem; a FUSE daemon is not told of a syncfs, but of an fsync
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DeferfsError(f"cannot sync {root}: {error.strerror}") from error
