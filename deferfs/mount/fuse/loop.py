"""The FUSE loop of pyfuse3, and what can be asked of the kernel beside it. There is one for each process."""

from __future__ import annotations

import errno
import logging
from typing import Final

import pyfuse3

from deferfs.mount.fuse.read_timer import ReadTimer
from deferfs.mount.fuse.readers import cheap_turns
from deferfs.mount.runtime.busy_poll import BusyPoll

_log: Final = logging.getLogger(__name__)
TASKS_MIN: Final = 8
"""Idle readers that pyfuse3 keeps: starting one for each request costs more than keeping it."""


async def serve(busy_poll: BusyPoll, handlers: int) -> None:
    """Read and answer requests, `handlers` at once at most, until the kernel lets go of the mount or `terminate` is
    called. In the main thread only."""
    with ReadTimer() as timer, cheap_turns(busy_poll, timer.start):
        await pyfuse3.main(min(TASKS_MIN, handlers), handlers)


def terminate() -> None:
    """Have `serve` return. From the event loop's thread."""
    pyfuse3.terminate()


def close() -> None:
    """Let go of the FUSE device; what is still mounted answers ENOTCONN."""
    pyfuse3.close(unmount=False)


def invalidate_entry(parent: int, name: bytes) -> None:
    """Have the kernel drop a directory entry. OSError. It may wait for a request under way, so never on the event
    loop's thread."""
    pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))


def invalidate_attributes(ino: int) -> None:
    """Have the kernel ask for the attributes anew. It takes no lock for that: a handler may call this."""
    try:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)
    except OSError as error:
        if error.errno != errno.ENOENT:  # the kernel does not know the inode any more
            raise


def invalidate_contents(inodes: list[int]) -> None:
    """Blocks until the kernel has written what was dirty."""
    for ino in inodes:
        try:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                _log.warning("collecting what was written to inode %d: %s", ino, error.strerror)
