"""The soft limit on inodes cached by the kernel.

The kernel forgets no inodes while it has enough memory itself, so a daemon with a budget of its own must ask. This
walks the directories known to the kernel, coldest first, and asks it to drop the entries of files that are not open;
FORGETs follow. It needs no memory per inode: names come from the directories on disk.

Never called from a request handler: the kernel may be waiting for that very request.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from deferfs.errors import FsError
from deferfs.limits import INODE_COST_BYTES
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume import namespace

if TYPE_CHECKING:
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.volume.volume import Volume

_BATCH: Final = 256
"""Entries dropped by one call."""
_DIRECTORIES_MAX: Final = 64
"""Directories searched by one call: most of their files may be in use or forgotten already."""
log = logging.getLogger(__name__)


class KernelCache:
    """`invalidate(parent, name)` asks the kernel to drop one entry and may block: it is called in a thread."""

    def __init__(self, volume: Volume, run_reserved: RunReserved, invalidate: Callable[[int, bytes], None]) -> None:
        self._volume = volume
        self._run_reserved = run_reserved
        self._invalidate = invalidate
        self._position: tuple[int, int] = (0, 0)
        """(directory, cookie) where the last call stopped."""

    async def trim(self) -> int:
        """Drop one batch of entries; returns the bytes that this will free once the FORGETs have arrived."""
        for _ in range(_DIRECTORIES_MAX):
            parent, after = self._position
            if not parent:
                directories = self._volume.directories
                if not directories:
                    return 0
                parent, after = next(iter(directories)), 0
                directories.move_to_end(parent)
            names, last = await self._candidates(parent, after)
            self._position = (parent, last) if last else (0, 0)
            if names:
                await trio.to_thread.run_sync(self._drop, parent, names)
                return len(names) * INODE_COST_BYTES
        return 0

    async def _candidates(self, parent: int, after: int) -> tuple[list[bytes], int]:
        """Names in `parent` of files that only the kernel's cache refers to, and the cookie to continue from (0: at the
        end).
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
                if len(names) >= _BATCH or looked_at >= 4 * _BATCH:
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
