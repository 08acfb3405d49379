"""The FUSE loop of pyfuse3, and notifications to the kernel. One per process."""

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
    """Read and answer requests, at most `handlers` at once, until the kernel releases the mount or `terminate` is
    called. In the main thread only."""
    with ReadTimer() as timer, cheap_turns(busy_poll, timer.start):
        await pyfuse3.main(min(TASKS_MIN, handlers), handlers)


def terminate() -> None:
    """Make `serve` return. From the event loop's thread."""
    pyfuse3.terminate()


def close() -> None:
    """Close the FUSE device; mounts that remain return ENOTCONN."""
    pyfuse3.close(unmount=False)


def invalidate_entry(parent: int, name: bytes) -> None:
    """Make the kernel drop a directory entry. OSError. It may wait for a request in flight, so it must never run on the
    event loop's thread."""
    pyfuse3.invalidate_entry(pyfuse3.InodeT(parent), pyfuse3.FileNameT(name))


def invalidate_attributes(ino: int) -> None:
    """Make the kernel ask for the attributes again. That takes no lock: a handler may call this."""
    try:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)
    except OSError as error:
        if error.errno != errno.ENOENT:  # the kernel does not have the inode any more
            raise


def invalidate_contents(inodes: list[int]) -> None:
    """Make the kernel write back and drop its pages of these inodes; blocks until the dirty ones are written."""
    for ino in inodes:
        try:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                _log.warning("cannot flush the kernel's dirty pages of inode %d: %s", ino, error.strerror)
