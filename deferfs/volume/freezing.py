"""Freezing: the image is made clean and stays so until the thaw, while reads continue. Also read-only and unmount.

**Invariants**
- While frozen, an operation that wants to change something waits (NeedThaw), with nothing held; FORGETs only queue, in
  either mode; looking up a queued linked inode makes it live again, as ever. No inactivation runs.
- inodegc is stopped before the volume is frozen, and a request to start it is refused until the thaw: otherwise a step
  in progress would wait for the thaw, and the freeze for the step, a deadlock.
- The image is marked clean after everything applied is written home, and marked in use again before the first change.
- A freeze that has lasted `limit_seconds` is overdue, and ends by itself (`expire`): the script that was to thaw may
  have died. A thaw that fails is tried again after another limit. A later thaw is told what has happened.

One of these tasks at a time: the driver sees to it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.limits import FREEZE_SECONDS_DEFAULT
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.reclaim.lockdep import THAW
from deferfs.store.io import Job
from deferfs.store.store import close_store, mark_errors
from deferfs.volume.waits import Exclusive, Task, Thawed

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


def _no_time() -> float:
    return 0.0


class Freezing:
    """Freeze, thaw, read-only, unmount, of one volume."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self.on_thawed: Callable[[], None] = _nothing
        """Changes are possible again."""
        self.begun = False
        """True from the start of a freeze, while inodegc is still stopping, to the thaw."""
        self.seconds: Callable[[], float] = _no_time
        """A clock that only runs forward; a driver may replace it."""
        self.limit_seconds: float = FREEZE_SECONDS_DEFAULT
        """A freeze ends by itself after so long; 0: never."""
        self.since_ns = 0
        """When the present freeze began, in ns since the epoch; 0 when there is none."""
        self.began = 0.0
        """The same by `seconds`, or when its thaw was last tried in vain."""
        self.expired_total = 0
        self._expired_at: float | None = None
        """When the limit ended the last freeze."""

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
        self.since_ns = self._store.clock()
        self.began = self.seconds()
        self._expired_at = None

    def thaw(self) -> Task[None]:
        """Let changes happen again. FsError(EINVAL) when it is not frozen, or not any more."""
        if not self._store.frozen:
            raise FsError(errno.EINVAL, self._why_not_frozen())
        yield from self._mark_in_use()
        self._release()

    def thawed(self) -> Task[None]:
        """Wait, holding nothing, until changes are possible again."""
        self._engine.checker.might_wait("thaw")
        with self._engine.measure("thaw"):
            yield Thawed(self)

    @property
    def overdue(self) -> bool:
        """Whether the present freeze has lasted too long."""
        return self._store.frozen and 0 < self.limit_seconds <= self.seconds() - self.began

    def expire(self) -> Task[None]:
        """End a freeze that is overdue."""
        if not self.overdue:
            return
        try:
            yield from self.thaw()
        except OSError as error:
            log.error("cannot thaw: %s", error)
            self.began = self.seconds()
            return
        self._expired_at = self.seconds()
        self.expired_total += 1
        log.warning("thawed: frozen for longer than freeze_limit=%g", self.limit_seconds)

    def _why_not_frozen(self) -> str:
        if self._expired_at is None:
            return "not frozen"
        ago = self.seconds() - self._expired_at
        return (
            f"not frozen any more: freeze_limit={self.limit_seconds:g} ended the freeze {ago:.0f} s ago, and what was"
            " copied since then may be torn"
        )

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
            self._thawed()
            if not self._store.read_only:
                self._engine.cleanup.release()

    def make_writable(self) -> Task[None]:
        """Undo `make_read_only`. FsError(EROFS) when it was opened read-only, or met an error."""
        if not self._store.read_only:
            return
        if not self._engine.device.writable:
            raise FsError(errno.EROFS, "the image was opened read-only")
        self._store.journal.require_working()
        yield from self._mark_in_use()
        self._store.read_only = False
        self._engine.cleanup.release()

    def unmount(self, drain_seconds: float) -> Task[None]:
        """Drop all references, inactivate (for a bounded time; the rest stays in the orphan table), write everything
        home and mark the image clean. FsError when it is left with a log to replay."""
        engine = self._engine
        if self._store.frozen:
            yield from self.thaw()
        engine.cleanup.restart()
        engine.forgetting.stop()
        deadline_ns = engine.now_ns() + drain_seconds * 1e9
        inodes, due = engine.volume.inodes, engine.volume.inodes.drop_all()
        while True:
            for inode in due:
                engine.volume.gc.enqueue(inode)
            yield from engine.cleanup.flush(deadline_ns)
            if not inodes.lru or inodes.debts.count:
                break  # all is done, or the time is over, or the journal was aborted
            due = inodes.evict_idle()
        engine.eviction.trims = False
        yield from engine.cleanup.quiesce()
        left = engine.volume.gc.backlog
        if left:
            log.info("%d inodes are not cleaned up; the next mount frees the deleted ones", left)
        try:
            yield from engine.durability.exclusively(self._close())
        finally:
            engine.write_back.stop()

    def _close(self) -> Job[None]:
        if self._engine.corruptions_total:
            yield from mark_errors(self._store)
        yield from close_store(self._store)

    def _require_writable(self) -> None:
        if self._store.read_only:
            raise FsError(errno.EROFS, "mounted read-only")
        self._store.journal.require_working()

    def _thawed(self) -> None:
        self._store.frozen = self.begun = False
        self.since_ns = 0
        self.on_thawed()

    def _release(self) -> None:
        self._thawed()
        self._engine.cleanup.release()

    def _quiesce(self) -> Task[None]:
        """Stop inodegc and write everything home."""
        engine = self._engine
        with engine.checker.holding("freeze", THAW):
            yield from engine.cleanup.quiesce()
            self._store.frozen = True
            yield from engine.durability.exclusively(close_store(self._store))

    def _mark_in_use(self) -> Task[None]:
        store = self._store
        if store.superblock.state & STATE_CLEAN:
            self._engine.checker.might_wait("checkpoint")
            yield Exclusive(
                store.write_superblock(state=store.superblock.state & ~STATE_CLEAN, written_ns=store.clock())
            )
