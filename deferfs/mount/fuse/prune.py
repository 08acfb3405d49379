"""FUSE_NOTIFY_PRUNE, by which the kernel is asked to drop inodes by their numbers. Neither libfuse nor pyfuse3 has it.

Linux 6.18 and later, <linux/fuse.h>: `struct fuse_out_header` with the code in `error` and `unique` 0, `struct
fuse_notify_prune_out`, the node ids. The kernel drops the unused names of each inode, and with them the inode unless it
is in use; it takes no lock of a directory, and has queued the FORGETs when the write returns.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

_NOTIFY_PRUNE: Final = 9
_OUT_HEADER: Final = struct.Struct("=IiQ")
"""Length of the message, code, `unique`."""
_PRUNE_OUT: Final = struct.Struct("=IIQ")
"""Number of node ids, padding, spare."""


def prune(fd: int, inodes: Sequence[int]) -> None:
    """Ask the kernel of the FUSE connection `fd` to drop these inodes. OSError; EINVAL: this kernel cannot.

    It writes the dirty pages of an inode back before it drops it, so this must never run on the event loop's thread.
    """
    body = _PRUNE_OUT.pack(len(inodes), 0, 0) + struct.pack(f"={len(inodes)}Q", *inodes)
    os.write(fd, _OUT_HEADER.pack(_OUT_HEADER.size + len(body), _NOTIFY_PRUNE, 0) + body)
