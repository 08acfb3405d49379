"""What is in quarantine is flagged in its orphan slot: the next mount leaves it alone too, and fsck reports it."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.reclaim.states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    from deferfs.mount.runtime.runtime import Runtime
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.store.plan import Plan

log = logging.getLogger(__name__)


def tell(runtime: Runtime) -> None:
    """Log what an earlier mount has left there."""
    for inode in runtime.volume.inodes.table.values():
        if inode.state is State.QUARANTINED:
            log.warning("inode %d is in quarantine since an earlier mount; see deferfs fsck", inode.ino)


async def remember(runtime: Runtime, inode: InCoreInode) -> None:
    """Flag the slot of an orphan whose cleanup has failed for good. What goes wrong is logged."""
    log.error("inode %d is in quarantine: its cleanup failed %d times", inode.ino, inode.failures)
    if not _has_slot(inode):
        return
    try:
        await runtime.run_reserved(_flag(runtime, inode, quarantined=True))
    except FsError as error:
        log.warning("quarantine of inode %d could not be written down: %s", inode.ino, error)


async def release(runtime: Runtime) -> None:
    """Take the flags away. FsError when one cannot be."""
    for inode in list(runtime.volume.inodes.table.values()):
        if inode.state is State.QUARANTINED and _has_slot(inode):
            await runtime.run_reserved(_flag(runtime, inode, quarantined=False))


def _has_slot(inode: InCoreInode) -> bool:
    return inode.orphan and inode.slot >= 0


def _flag(runtime: Runtime, inode: InCoreInode, *, quarantined: bool) -> Callable[[Plan], None]:
    set_quarantine = runtime.store.orphans.set_quarantine
    return partial(set_quarantine, slot=inode.slot, ino=inode.ino, generation=inode.generation, quarantined=quarantined)
