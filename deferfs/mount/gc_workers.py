"""The workers of inodegc: they take batches from its queue and run the inactivations.

**Invariant:** a worker is never cancelled inside a batch; when the pool is told to stop it leaves off between two
transactions, and what is left stands in the orphan table.
"""

from __future__ import annotations

import errno
import logging
import select
import time
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import GC_TURN_NS
from deferfs.reclaim.inactivation import Inactivation
from deferfs.reclaim.lockdep import GC_DRAIN
from deferfs.volume import files

if TYPE_CHECKING:
    from deferfs.mount.runtime import Runtime
    from deferfs.reclaim.inode import InCoreInode

log = logging.getLogger(__name__)

_BATCH = 64
_DELAY_SECONDS = 0.004
"""How long a batch may gather: one jiffy at 250 Hz, as XFS."""
_YIELDS_MAX = 8
"""Turns in a row that a worker leaves to waiting requests before it takes its own."""
_SHORT_OF_MEMORY = 0.9
_SHORT_OF_SPACE = 20
"""Below one block in twenty a batch does not wait to grow."""


class GcWorkers:
    """A pool of worker tasks, and the inactivation as they and the inline policy run it."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self.runtime = runtime
        self.gc = runtime.volume.gc
        self.store = runtime.store
        self.count = count
        self.stopping = False
        self._nursery: trio.Nursery | None = None
        self._scopes: list[trio.CancelScope] = []
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._idle = trio.Event()
        self._busy = 0
        self._trims: dict[int, None] = {}
        self._requests = select.poll()
        self._turn_start = 0

    def start(self, nursery: trio.Nursery) -> None:
        """Start the workers."""
        self._nursery = nursery
        self.gc.wake = self._queued
        self.set_count(self.count)

    def set_count(self, count: int) -> None:
        """Change the size of the pool."""
        assert self._nursery is not None
        self.count = count
        while len(self._scopes) > count:
            self._scopes.pop().cancel()
        while len(self._scopes) < count:
            scope = trio.CancelScope()
            self._scopes.append(scope)
            self._nursery.start_soon(self._worker, scope)

    def watch_requests(self, fd: int) -> None:
        """`fd` is readable while requests wait: workers let them go first."""
        self._requests.register(fd, select.POLLIN)

    def unwatch_requests(self, fd: int) -> None:
        """The mount is gone: there will be no more requests."""
        self._requests.unregister(fd)

    # --- the queue ---
    def _queued(self) -> None:
        self._wake.set()
        if self.gc.queued >= _BATCH:
            self._hurry.set()

    def push(self) -> None:
        """Start the workers on what is queued, without waiting."""
        self._hurry.set()
        self._wake.set()

    def queue_trim(self, ino: int) -> None:
        """Trim a file's blocks past EOF in the background."""
        self._trims[ino] = None
        self._wake.set()

    @property
    def has_work(self) -> bool:
        """Whether anything is queued or being cleaned up."""
        return bool(self.gc.backlog or self._trims or self._busy or self.store.recovered)

    async def flush(self) -> None:
        """Wait until nothing is queued."""
        while self.has_work:
            self.push()
            await self._idle.wait()

    async def stop(self) -> None:
        """Have the workers leave off, and wait until they have."""
        self.stopping = True
        self.set_count(0)
        while self._busy:
            await self._idle.wait()

    # --- the workers ---
    async def _worker(self, scope: trio.CancelScope) -> None:
        with scope:
            while not self.stopping:
                if not await self._work_once():
                    if self._wake.is_set():
                        self._wake = trio.Event()
                    await self._wake.wait()
                    await self._gather()

    async def _gather(self) -> None:
        """Let a batch come together, unless somebody waits, or memory or space is short."""
        memory, space = self.store.memory, self.store.space
        short = (
            memory.used > _SHORT_OF_MEMORY * memory.limit_bytes or space.free_blocks < space.blocks // _SHORT_OF_SPACE
        )
        if not short and self.gc.queued < _BATCH and not self._hurry.is_set():
            with trio.move_on_after(_DELAY_SECONDS):
                await self._hurry.wait()

    async def _work_once(self) -> bool:
        """Take a batch and clean it up; False when there is nothing to do."""
        if self.gc.head is None and self.store.recovered:
            self._adopt_orphans()
        batch = self.gc.take(_BATCH)
        if not batch and not self._trims:
            if self._hurry.is_set():
                self._hurry = trio.Event()
            self._tell_idle()
            return False
        self._busy += 1
        try:
            with trio.CancelScope(shield=True), self.runtime.checker.holding("inodegc worker", GC_DRAIN):
                for inode in batch:
                    await self._inactivate_queued(inode)
                if self._trims:
                    ino = next(iter(self._trims))
                    del self._trims[ino]
                    await self._trim_quietly(ino)
        finally:
            self._busy -= 1
            self._tell_idle()
        return True

    def _tell_idle(self) -> None:
        if not self._busy:
            event, self._idle = self._idle, trio.Event()
            event.set()

    def _adopt_orphans(self) -> None:
        """Queue a part of what the orphan table held at mount: the rest costs no in-core inode yet."""
        volume = self.runtime.volume
        for _, slot in self.store.recovered.take(_BATCH):
            due = volume.inodes.orphaned(slot.ino, slot.generation, 0)
            if due is not None:
                self.gc.enqueue(due)

    async def _inactivate_queued(self, inode: InCoreInode) -> None:
        try:
            await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            self.gc.failed(inode)
        else:
            self.gc.done(inode)

    # --- the inactivation ---
    async def inactivate(self, inode: InCoreInode) -> None:
        """Run one inactivation to its end, yielding between transactions when its turn is over."""
        inactivation = Inactivation(self.runtime.volume.inodes, inode)
        if self._told_to_stop() or not inactivation.begin():
            return
        while not await self.runtime.run_reserved(inactivation.step):
            await self._end_turn()
            if self._told_to_stop():
                return
        inactivation.finish()
        await self._end_turn()

    def _told_to_stop(self) -> bool:
        return self.stopping

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        """Inline: the caller waits. What fails is left to inodegc, so that no inode is lost."""
        try:
            await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.runtime.volume.inodes.retry(inode):
                self.gc.enqueue(inode)

    async def trim(self, ino: int) -> None:
        """Free a file's blocks past EOF."""
        volume = self.runtime.volume
        while not await self.runtime.run_reserved(lambda plan: files.trim(plan, volume, ino)):
            await self._end_turn()

    async def _trim_quietly(self, ino: int) -> None:
        try:
            await self.trim(ino)
            await self._end_turn()
        except FsError as error:
            if error.errno != errno.ESTALE:
                log.warning("trimming inode %d failed: %s", ino, error)

    async def _end_turn(self) -> None:
        """Between two transactions: when the turn has lasted long enough, waiting requests run first, for a bounded
        number of turns."""
        if time.perf_counter_ns() - self._turn_start <= GC_TURN_NS:
            return
        for _ in range(_YIELDS_MAX):
            await trio.lowlevel.checkpoint()
            if not self._requests.poll(0):
                break
        self._turn_start = time.perf_counter_ns()
