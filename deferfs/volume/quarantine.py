"""Quarantine is recorded in the orphan slot, so that the next mount skips the inode, too, and fsck reports it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.store.plan import Plan
from deferfs.volume.waits import Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


def report(engine: Engine) -> None:
    """Log the inodes that earlier mounts have put into quarantine."""
    for inode in engine.volume.inodes.table.values():
        if inode.state is State.QUARANTINED:
            log.warning("inode %d is in quarantine since an earlier mount; see deferfs fsck", inode.ino)


def remember(engine: Engine, inode: InCoreInode) -> Task[None]:
    """Flag the slot of an orphan whose cleanup has failed for good. An error is logged."""
    log.error("inode %d is in quarantine: its cleanup failed %d times", inode.ino, inode.failures)
    if not _has_slot(inode):
        return
    try:
        yield from engine.operation(_flag(engine, inode, quarantined=True), reserve=True)
    except FsError as error:
        log.warning("the quarantine of inode %d could not be recorded on disk: %s", inode.ino, error)


def release(engine: Engine) -> Task[None]:
    """Clear the flags. FsError when a slot cannot be written."""
    for inode in list(engine.volume.inodes.table.values()):
        if inode.state is State.QUARANTINED and _has_slot(inode):
            yield from engine.operation(_flag(engine, inode, quarantined=False), reserve=True)


def _has_slot(inode: InCoreInode) -> bool:
    return inode.orphan and inode.slot >= 0


def _flag(engine: Engine, inode: InCoreInode, *, quarantined: bool) -> Callable[[Plan], None]:
    set_quarantine = engine.store.orphans.set_quarantine
    return partial(set_quarantine, slot=inode.slot, ino=inode.ino, generation=inode.generation, quarantined=quarantined)
