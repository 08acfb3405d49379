"""The soft limit on inodes cached by the kernel.

The kernel forgets no inodes while it has enough memory itself, so a daemon with a budget of its own must ask; FORGETs
follow. A kernel that can is asked by number (`prune.py`), for the inodes that are not open, have been in core for
longest and were not opened again. Another one is asked by name: this walks the directories known to the kernel, coldest
first, and needs no memory per inode, as the names come from the directories on disk.

Never called from a request handler: the kernel may be waiting for that very request.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import trio

from deferfs.errors import FsError
from deferfs.limits import INODE_COST_BYTES
from deferfs.mount.fuse.prune import prune
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume import namespace

if TYPE_CHECKING:
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.volume.volume import Volume

_BATCH: Final = 256
"""Inodes dropped by one call."""
_DIRECTORIES_MAX: Final = 64
"""Directories searched by one call: most of their files may be in use or forgotten already."""
log = logging.getLogger(__name__)


class KernelCache:
    """That of the FUSE connection `fd`. `prune(fd, inodes)` asks the kernel to drop inodes, `invalidate(parent, name)`
    to drop one entry. Both may block, and are called in a thread."""

    def __init__(
        self,
        volume: Volume,
        run_reserved: RunReserved,
        fd: int,
        invalidate: Callable[[int, bytes], None],
        prune: Callable[[int, Sequence[int]], None] = prune,
    ) -> None:
        self._volume = volume
        self._run_reserved = run_reserved
        self._fd = fd
        self._invalidate = invalidate
        self._prune = prune
        self._by_number = True
        """Until the kernel has refused."""
        self._position: tuple[int, int] = (0, 0)
        """(directory, cookie) where the last call by name stopped."""

    def released(self) -> None:
        """The mount is gone: nothing more is asked. To be called before its descriptor is closed."""
        self._fd = -1

    async def trim(self, bytes_wanted: int) -> int:
        """Have at most one batch of inodes dropped; returns the bytes that this will free once the FORGETs have
        arrived, if the kernel does not use them."""
        if self._fd < 0:
            return 0
        count = min(_BATCH, -(-bytes_wanted // INODE_COST_BYTES))
        dropped = await self._trim_by_number(count)
        return await self._trim_by_name(count) if dropped is None else dropped

    async def _trim_by_number(self, count: int) -> int | None:
        """None: the kernel does not know the request."""
        if not self._by_number:
            return None
        inodes = self._volume.inodes.droppable(count)
        if not inodes:
            return 0
        fd = os.dup(self._fd)  # the thread may begin to write when that number belongs to another file
        try:
            await trio.to_thread.run_sync(self._prune, fd, inodes)
        except OSError as error:
            log.debug("pruning the kernel's inodes: %s", error)
            self._by_number = error.errno != errno.EINVAL
            return 0 if self._by_number else None
        finally:
            os.close(fd)
        return len(inodes) * INODE_COST_BYTES

    async def _trim_by_name(self, count: int) -> int:
        for _ in range(_DIRECTORIES_MAX):
            parent, after = self._position
            if not parent:
                directories = self._volume.directories
                if not directories:
                    return 0
                parent, after = next(iter(directories)), 0
                directories.move_to_end(parent)
            names, last = await self._candidates(parent, after, count)
            self._position = (parent, last) if last else (0, 0)
            if names:
                await trio.to_thread.run_sync(self._drop, parent, names)
                return len(names) * INODE_COST_BYTES
        return 0

    async def _candidates(self, parent: int, after: int, count: int) -> tuple[list[bytes], int]:
        """Up to `count` names in `parent` of files that only the kernel's cache refers to, and the cookie to continue
        from (0: at the end).
        """
        volume = self._volume
        table = volume.inodes.table

        def collect(plan: Plan) -> tuple[list[bytes], int]:
            names: list[bytes] = []
            for looked_at, entry in enumerate(namespace.readdir(plan, volume, parent, max(after, 2))):
                inode = table.get(entry.ino)
                idle = inode is not None and inode.state is State.LIVE and not inode.active_tokens
                if idle and entry.ino not in volume.directories:
                    names.append(entry.name)
                if len(names) >= count or looked_at >= 4 * _BATCH:
                    return names, entry.key
            return names, 0

        try:
            return await self._run_reserved(collect)
        except FsError:
            return [], 0  # the directory has been deleted

    def _drop(self, parent: int, names: list[bytes]) -> None:
        for name in names:
            try:
                self._invalidate(parent, name)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    log.debug("invalidating an entry of inode %d: %s", parent, error)
                    return
