"""Freezing: the image is made clean and stays so until the thaw, while looking goes on. And read-only for good.

**Invariants**
- While frozen, whoever wants to change something waits (NeedThaw), with nothing held; FORGETs only queue, in either
  mode; looking up a queued linked inode makes it live again, as ever. No inactivation runs.
- The image is marked clean after everything applied is at home, and marked in use again before the first change.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.mount.jobs import run_job
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.reclaim.lockdep import THAW
from deferfs.store.store import close_store

if TYPE_CHECKING:
    from deferfs.mount.runtime import Runtime

log = logging.getLogger(__name__)


class Freezer:
    """Freeze, thaw, read-only, for one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self._turn = trio.Lock()
        self._thawed = trio.Event()

    async def wait_thawed(self) -> None:
        """Wait until changes are possible again."""
        while self.store.frozen:
            await self._thawed.wait()

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
            log.info("frozen")

    async def thaw(self) -> None:
        """Let changes happen again. FsError(EINVAL) when it is not frozen."""
        async with self._turn:
            if not self.store.frozen:
                raise FsError(errno.EINVAL, "not frozen")
            await self._mark_in_use()
            self._release()
            log.info("thawed")

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
            await self.runtime.workers.flush()
            try:
                await self._quiesce()
                self.store.read_only = True
            finally:
                self.store.frozen = False
                self._thawed.set()
                if not self.store.read_only:
                    self.runtime.workers.resume()
            log.info("read-only")

    async def make_writable(self) -> None:
        """Undo `make_read_only`. FsError(EROFS) when it was mounted read-only, or met an error."""
        async with self._turn:
            if not self.store.read_only:
                return
            if not self.runtime.device.writable:
                raise FsError(errno.EROFS, "the image was opened read-only")
            self.store.journal.require_working()
            await self._mark_in_use()
            self.store.read_only = False
            self.runtime.workers.resume()
            log.info("read-write")

    def _require_writable(self) -> None:
        if self.store.read_only:
            raise FsError(errno.EROFS, "mounted read-only")
        self.store.journal.require_working()

    def _release(self) -> None:
        self.store.frozen = False
        self._thawed.set()
        self.runtime.workers.resume()

    async def _quiesce(self) -> None:
        """Nothing runs, and everything is at home. The workers leave off first: one that met the freeze between two
        waits of a step would wait for the thaw, and the freeze for it."""
        with self.runtime.checker.holding("freeze", THAW):
            await self.runtime.workers.stop()
            self._thawed = trio.Event()
            self.store.frozen = True
            async with self.runtime.background.quiet():
                await run_job(self.runtime.device, close_store(self.store))

    async def _mark_in_use(self) -> None:
        store = self.store
        if store.superblock.state & STATE_CLEAN:
            await run_job(
                self.runtime.device,
                store.write_superblock(state=store.superblock.state & ~STATE_CLEAN, written_ns=store.clock()),
            )
