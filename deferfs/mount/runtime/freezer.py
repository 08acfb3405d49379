"""Freezing: the image is made clean and stays so until the thaw, while reads continue; and switching to read-only until
the unmount.

**Invariants**
- While frozen, operations that change something wait (NeedThaw), with nothing held; FORGETs only queue, in either
  mode; looking up a queued linked inode makes it live again, as ever. No inactivation runs.
- A waiting operation ends when its caller is killed; all continue when the freeze is overdue (`volume/freezing.py`).
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
        self.waiting = 0
        self.killed_total = 0
        self._turn = trio.Lock()
        self._thawed = Pulse()
        self._frozen = Pulse()
        engine.freezing.on_thawed = self._thawed.beat
        engine.freezing.seconds = trio.current_time
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
        """The task that ends a freeze which nothing else ends."""
        while True:
            await self._frozen.wait()
            while self.store.frozen and not self._freezing.overdue:
                with trio.move_on_after(_LIMIT_LOOK_SECONDS):
                    await self._thawed.wait()
            self._frozen.clear()
            async with self._turn:
                await self._drive(self._freezing.expire())
                if self.store.frozen:
                    self._frozen.set()

    def snapshot(self) -> Freeze:
        """For the statistics."""
        freezing = self._freezing
        return Freeze(
            since_ns=freezing.since_ns,
            seconds=freezing.seconds() - freezing.began if freezing.since_ns else 0.0,
            limit_seconds=freezing.limit_seconds,
            waiting=self.waiting,
            killed_total=self.killed_total,
            expired_total=freezing.expired_total,
        )

    async def freeze(self) -> None:
        """Return when the image is clean and nothing changes it. FsError: EBUSY when it is frozen already, EROFS when
        it cannot be written anyway."""
        async with self._turn:
            await self._drive(self._freezing.freeze())
            self._frozen.set()
            log.info("frozen")

    async def thaw(self) -> None:
        """Let changes happen again. FsError(EINVAL) when it is not frozen, or not any more."""
        async with self._turn:
            await self._drive(self._freezing.thaw())
            log.info("thawed")

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
