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
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from deferfs.contract.statistics import Freeze
from deferfs.errors import FsError
from deferfs.limits import FREEZE_SECONDS_DEFAULT
from deferfs.mount.runtime.activity import caller
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.throttle import LOOK_SECONDS
from deferfs.volume.waits import Thawed

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)
_LIMIT_LOOK_SECONDS: Final = 1.0
"""How often to look whether the limit, which may be changed, is over."""


class Freezer:
    """Freeze, thaw, read-only, for one store."""

    def __init__(self, engine: Engine, tasks: TaskDriver, being_killed: Callable[[int], bool]) -> None:
        """`being_killed` tells whether a thread is."""
        self.store = engine.store
        self._freezing = engine.freezing
        self._drive = tasks.drive
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
        engine.freezing.on_thawed = self._release
        tasks.register({Thawed: self._wait_thawed})

    async def _wait_thawed(self, wait: Thawed) -> None:
        """Wait until changes are possible again. FsError(EINTR) when the caller of the running request is being
        killed."""
        pid = caller()
        self.waiting += 1
        try:
            while not wait.over():
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
            await self._drive(self._freezing.thaw())
        except OSError as error:
            log.error("cannot thaw: %s", error)
            self._began = trio.current_time()  # again after another limit
            self._frozen.set()
            return
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
            await self._drive(self._freezing.freeze())
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
            await self._drive(self._freezing.thaw())
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
        """The mount ends: it is not frozen or thawed meanwhile, nor afterwards."""
        async with self._turn:
            yield
            self.store.read_only = True

    async def make_read_only(self) -> None:
        """Clean up the backlog, bring everything home, and refuse changes from now on (EROFS)."""
        async with self._turn:
            await self._drive(self._freezing.make_read_only())
            log.info("read-only")

    async def make_writable(self) -> None:
        """Undo `make_read_only`. FsError(EROFS) when it was mounted read-only, or met an error."""
        async with self._turn:
            if not self.store.read_only:
                return
            await self._drive(self._freezing.make_writable())
            log.info("read-write")

    def _release(self) -> None:
        self.since_ns = 0
        self._thawed.beat()
