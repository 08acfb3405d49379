"""What is in quarantine is flagged in its orphan slot: the next mount leaves it alone too, and fsck reports it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.reclaim.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.store.plan import Plan
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)


class Quarantine:
    """The flags in the orphan table of one volume."""

    def __init__(self, volume: Volume, run_reserved: RunReserved) -> None:
        self._volume = volume
        self._run_reserved = run_reserved

    def tell(self) -> None:
        """Log what an earlier mount has left there."""
        for inode in self._volume.inodes.table.values():
            if inode.state is State.QUARANTINED:
                log.warning("inode %d is in quarantine since an earlier mount; see deferfs fsck", inode.ino)

    async def remember(self, inode: InCoreInode) -> None:
        """Flag the slot of an orphan whose cleanup has failed for good. What goes wrong is logged."""
        log.error("inode %d is in quarantine: its cleanup failed %d times", inode.ino, inode.failures)
        if not _has_slot(inode):
            return
        try:
            await self._run_reserved(self._flag(inode, quarantined=True))
        except FsError as error:
            log.warning("quarantine of inode %d could not be written down: %s", inode.ino, error)

    async def release(self) -> None:
        """Take the flags away. FsError when one cannot be."""
        for inode in list(self._volume.inodes.table.values()):
            if inode.state is State.QUARANTINED and _has_slot(inode):
                await self._run_reserved(self._flag(inode, quarantined=False))

    def _flag(self, inode: InCoreInode, *, quarantined: bool) -> Callable[[Plan], None]:
        flag = self._volume.store.orphans.set_quarantine
        return partial(flag, slot=inode.slot, ino=inode.ino, generation=inode.generation, quarantined=quarantined)


def _has_slot(inode: InCoreInode) -> bool:
    return inode.orphan and inode.slot >= 0
