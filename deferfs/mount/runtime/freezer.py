"""Freezing: the image is made clean and stays so until the thaw, while looking goes on. And read-only for good.

**Invariants**
- While frozen, whoever wants to change something waits (NeedThaw), with nothing held; FORGETs only queue, in either
  mode; looking up a queued linked inode makes it live again, as ever. No inactivation runs.
- Whoever waits is let go when it is killed, and all are when the freeze has lasted `limit_seconds`: the script that was
  to thaw may have died.
- The image is marked clean after everything applied is at home, and marked in use again before the first change.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import trio

from deferfs.contract.statistics import Freeze
from deferfs.errors import FsError
from deferfs.limits import FREEZE_SECONDS_DEFAULT
from deferfs.mount.runtime.activity import caller
from deferfs.mount.runtime.jobs import run_job
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.throttle import LOOK_SECONDS
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.reclaim.lockdep import THAW
from deferfs.store.store import close_store

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.reclaim.context import ReclaimChecker
    from deferfs.store.store import Store

log = logging.getLogger(__name__)
_LIMIT_LOOK_SECONDS: Final = 1.0
"""How often to look whether the limit, which may be changed, is over."""


class Writer(Protocol):
    """What writes the image in the background (`Committer`)."""

    def quiet(self) -> AbstractAsyncContextManager[None]:
        """Inside, everything is committed, and nothing writes."""


class Cleaner(Protocol):
    """What changes the filesystem in the background (`GcWorkers`)."""

    async def flush(self) -> None:
        """Wait until nothing is left to do."""

    async def stop(self) -> None:
        """Leave off; nothing runs when this returns."""

    def resume(self) -> None:
        """Go on."""


class Freezer:
    """Freeze, thaw, read-only, for one store."""

    def __init__(
        self,
        device: Device,
        store: Store,
        checker: ReclaimChecker,
        writer: Writer,
        cleaner: Cleaner,
        being_killed: Callable[[int], bool],
    ) -> None:
        """`being_killed` tells whether a thread is."""
        self.store = store
        self._device = device
        self._checker = checker
        self._writer = writer
        self._cleaner = cleaner
        self._being_killed = being_killed
        self.limit_seconds = FREEZE_SECONDS_DEFAULT
        """A freeze ends by itself after so long; 0: never."""
        self.waiting = 0
        self.killed_total = 0
        self.expired_total = 0
        self.since_ns = 0
        """When the present freeze began, in ns since the epoch; 0 when there is none."""
        self._began = 0.0
        self._expired_at: float | None = None
        """When the limit ended the last freeze, until somebody has been told."""
        self._turn = trio.Lock()
        self._thawed = Pulse()
        self._frozen = Pulse()

    async def wait_thawed(self) -> None:
        """Wait until changes are possible again. FsError(EINTR) when the caller of the running request is being
        killed."""
        pid = caller()
        self.waiting += 1
        try:
            while self.store.frozen:
                with trio.move_on_after(LOOK_SECONDS if pid else inf):
                    await self._thawed.wait()
                    continue
                if self._being_killed(pid):
                    self.killed_total += 1
                    raise FsError(errno.EINTR)
        finally:
            self.waiting -= 1

    async def run(self) -> None:
        """The task that ends a freeze which nobody ends."""
        while True:
            await self._frozen.wait()
            while self.store.frozen and not self._is_overdue():
                with trio.move_on_after(_LIMIT_LOOK_SECONDS):
                    await self._thawed.wait()
            self._frozen.clear()
            async with self._turn:
                if self.store.frozen and self._is_overdue():
                    await self._expire()
                elif self.store.frozen:
                    self._frozen.set()

    def _is_overdue(self) -> bool:
        return self.limit_seconds > 0 and trio.current_time() >= self._began + self.limit_seconds

    async def _expire(self) -> None:
        try:
            await self._mark_in_use()
        except OSError as error:
            log.error("cannot thaw: %s", error)
            self._began = trio.current_time()  # again after another limit
            self._frozen.set()
            return
        self._release()
        self._expired_at = trio.current_time()
        self.expired_total += 1
        log.warning("thawed: frozen for longer than freeze_limit=%g", self.limit_seconds)

    def snapshot(self) -> Freeze:
        """For the statistics."""
        return Freeze(
            since_ns=self.since_ns,
            seconds=trio.current_time() - self._began if self.since_ns else 0.0,
            limit_seconds=self.limit_seconds,
            waiting=self.waiting,
            killed_total=self.killed_total,
            expired_total=self.expired_total,
        )

    async def freeze(self) -> None:
        """Return when the image is clean and nothing changes it. FsError: EBUSY when it is frozen already, EROFS when
        it cannot be written anyway."""
        async with self._turn:
            if self.store.frozen:
                raise FsError(errno.EBUSY, "already frozen")
            self._require_writable()
            try:
                await self._quiesce()
            except BaseException:
                self._release()
                raise
            self.since_ns = self.store.clock()
            self._began = trio.current_time()
            self._expired_at = None
            self._frozen.set()
            log.info("frozen")

    async def thaw(self) -> None:
        """Let changes happen again. FsError(EINVAL) when it is not frozen, or not any more."""
        async with self._turn:
            if not self.store.frozen:
                raise FsError(errno.EINVAL, self._why_not_frozen())
            await self._mark_in_use()
            self._release()
            log.info("thawed")

    def _why_not_frozen(self) -> str:
        if self._expired_at is None:
            return "not frozen"
        ago = trio.current_time() - self._expired_at
        return (
            f"not frozen any more: freeze_limit={self.limit_seconds:g} ended the freeze {ago:.0f} s ago, and what was"
            " copied since then may be torn"
        )

    @asynccontextmanager
    async def ended(self) -> AsyncIterator[None]:
        """The mount ends: it is thawed, and will not be frozen again."""
        async with self._turn:
            if self.store.frozen:
                await self._mark_in_use()
                self._release()
            yield
            self.store.read_only = True

    async def make_read_only(self) -> None:
        """Clean up the backlog, bring everything home, and refuse changes from now on (EROFS)."""
        async with self._turn:
            if self.store.frozen:
                raise FsError(errno.EBUSY, "frozen: thaw it first")
            self._require_writable()
            await self._cleaner.flush()
            try:
                await self._quiesce()
                self.store.read_only = True
            finally:
                self.store.frozen = False
                self._thawed.set()
                if not self.store.read_only:
                    self._cleaner.resume()
            log.info("read-only")

    async def make_writable(self) -> None:
        """Undo `make_read_only`. FsError(EROFS) when it was mounted read-only, or met an error."""
        async with self._turn:
            if not self.store.read_only:
                return
            if not self._device.writable:
                raise FsError(errno.EROFS, "the image was opened read-only")
            self.store.journal.require_working()
            await self._mark_in_use()
            self.store.read_only = False
            self._cleaner.resume()
            log.info("read-write")

    def _require_writable(self) -> None:
        if self.store.read_only:
            raise FsError(errno.EROFS, "mounted read-only")
        self.store.journal.require_working()

    def _release(self) -> None:
        self.store.frozen = False
        self.since_ns = 0
        self._thawed.set()
        self._cleaner.resume()

    async def _quiesce(self) -> None:
        """Nothing runs, and everything is at home. The workers leave off first: one that met the freeze between two
        waits of a step would wait for the thaw, and the freeze for it."""
        with self._checker.holding("freeze", THAW):
            await self._cleaner.stop()
            self._thawed.clear()
            self.store.frozen = True
            async with self._writer.quiet():
                await run_job(self._device, close_store(self.store))

    async def _mark_in_use(self) -> None:
        store = self.store
        if store.superblock.state & STATE_CLEAN:
            await run_job(
                self._device,
                store.write_superblock(state=store.superblock.state & ~STATE_CLEAN, written_ns=store.clock()),
            )
