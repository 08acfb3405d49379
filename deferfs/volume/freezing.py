"""Freezing: the image is made clean and stays so until the thaw, while reads continue. Also read-only and unmount.

**Invariants**
- While frozen, an operation that wants to change something waits (NeedThaw), with nothing held; FORGETs only queue, in
  either mode; looking up a queued linked inode makes it live again, as ever. No inactivation runs.
- inodegc is stopped before the volume is frozen: otherwise a step in progress would wait for the thaw, and the freeze
  for the step, a deadlock.
- The image is marked clean after everything applied is written home, and marked in use again before the first change.

One of these tasks at a time: the driver sees to it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.reclaim.lockdep import THAW
from deferfs.store.io import Job
from deferfs.store.store import close_store, mark_errors
from deferfs.volume.waits import Alone, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


def _nothing() -> None:
    """No driver is told."""


class Freezing:
    """Freeze, thaw, read-only, unmount, of one volume."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self.on_thawed: Callable[[], None] = _nothing
        """Changes are possible again."""
        self.begun = False
        """True from the start of a freeze, while inodegc is still stopping, to the thaw."""

    def freeze(self) -> Task[None]:
        """Return when the image is clean and nothing changes it. FsError: EBUSY when it is frozen already, EROFS when
        it cannot be written anyway."""
        if self._store.frozen:
            raise FsError(errno.EBUSY, "already frozen")
        self._require_writable()
        try:
            self.begun = True
            yield from self._quiesce()
        except BaseException:
            self._release()
            raise

    def thaw(self) -> Task[None]:
        """Let changes happen again, of a volume that is frozen."""
        yield from self._mark_in_use()
        self._release()

    def make_read_only(self) -> Task[None]:
        """Clean up the backlog, write everything home, and refuse changes from now on (EROFS)."""
        if self._store.frozen:
            raise FsError(errno.EBUSY, "frozen: thaw it first")
        self._require_writable()
        yield from self._engine.cleanup.flush()
        try:
            self.begun = True
            yield from self._quiesce()
            self._store.read_only = True
        finally:
            self._store.frozen = self.begun = False
            self.on_thawed()
            if not self._store.read_only:
                self._engine.cleanup.resume()

    def make_writable(self) -> Task[None]:
        """Undo `make_read_only`. FsError(EROFS) when it was opened read-only, or met an error."""
        if not self._store.read_only:
            return
        if not self._engine.device.writable:
            raise FsError(errno.EROFS, "the image was opened read-only")
        self._store.journal.require_working()
        yield from self._mark_in_use()
        self._store.read_only = False
        self._engine.cleanup.resume()

    def unmount(self, drain_seconds: float) -> Task[None]:
        """Drop all references, inactivate (for a bounded time; the rest stays in the orphan table), write everything
        home and mark the image clean. FsError when it is left with a log to replay."""
        engine = self._engine
        if self._store.frozen:
            yield from self.thaw()
        engine.cleanup.resume()
        for inode in engine.volume.inodes.drop_all():
            engine.volume.gc.enqueue(inode)
        yield from engine.cleanup.flush(engine.now_ns() + drain_seconds * 1e9)
        engine.eviction.trims = False
        yield from engine.cleanup.stop()
        left = engine.volume.gc.backlog
        if left:
            log.info("%d deleted files are left to the next mount", left)
        yield from engine.durability.alone(self._close())

    def _close(self) -> Job[None]:
        if self._engine.corruptions_total:
            yield from mark_errors(self._store)
        yield from close_store(self._store)

    def _require_writable(self) -> None:
        if self._store.read_only:
            raise FsError(errno.EROFS, "mounted read-only")
        self._store.journal.require_working()

    def _release(self) -> None:
        self._store.frozen = self.begun = False
        self.on_thawed()
        self._engine.cleanup.resume()

    def _quiesce(self) -> Task[None]:
        """Stop inodegc and write everything home."""
        engine = self._engine
        with engine.checker.holding("freeze", THAW):
            yield from engine.cleanup.stop()
            self._store.frozen = True
            yield from engine.durability.alone(close_store(self._store))

    def _mark_in_use(self) -> Task[None]:
        store = self._store
        if store.superblock.state & STATE_CLEAN:
            yield Alone(store.write_superblock(state=store.superblock.state & ~STATE_CLEAN, written_ns=store.clock()))
