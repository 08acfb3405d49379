"""The background tasks of a mount: committer, checkpointer, inodegc workers, reclaimer.

**Invariant:** one commit and one checkpoint at a time, each in its own task; whoever needs them asks and waits for an
event. A failed commit aborts the journal: every waiter is woken and gets EIO.
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
from deferfs.mount.jobs import run_job
from deferfs.reclaim.inactivation import Inactivation
from deferfs.store.checkpoint import checkpoint
from deferfs.store.commit import commit
from deferfs.store.store import close_store, mark_errors
from deferfs.volume import files

if TYPE_CHECKING:
    from deferfs.mount.kernel_cache import KernelCache
    from deferfs.mount.runtime import Runtime
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.store.journal import Grant

log = logging.getLogger(__name__)

_GC_BATCH = 64
_GC_DELAY_SECONDS = 0.004
"""How long a batch may gather: one jiffy at 250 Hz, as XFS."""
_YIELDS_MAX = 8
"""Turns in a row that a worker leaves to waiting requests before it takes its own."""
_RECLAIM_START = 0.9
_RECLAIM_STOP = 0.8
_DRAIN_SECONDS = 30


class Background:
    """Tasks around one runtime. Durations in seconds."""

    def __init__(self, runtime: Runtime, *, commit_seconds: float, workers: int, discard: bool) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self.commit_seconds = commit_seconds
        self.workers = workers
        self.discard = discard
        self.kernel_cache: KernelCache | None = None
        """Asks the kernel to drop entries when the in-core inodes it holds exceed the budget."""
        self._requests = select.poll()
        self._nursery: trio.Nursery | None = None
        self._worker_scopes: list[trio.CancelScope] = []
        self._commit_asked = trio.Event()
        self._committed = trio.Event()
        self._checkpoint_asked = trio.Event()
        self._checkpointed = trio.Event()
        self._grants: dict[Grant, trio.Event] = {}
        self._gc_wake = trio.Event()
        self._gc_hurry = trio.Event()
        self._gc_idle = trio.Event()
        self._reclaim_asked = trio.Event()
        self._trims: dict[int, None] = {}
        self._busy_workers = 0
        self._operations = 0
        self._turn_start = 0
        self.stopped = False

    def start(self, nursery: trio.Nursery) -> None:
        """Start all tasks; a read-only mount needs none."""
        self._nursery = nursery
        self.runtime.volume.gc.wake = self._wake_gc
        if self.store.read_only:
            return
        nursery.start_soon(self._committer)
        nursery.start_soon(self._checkpointer)
        nursery.start_soon(self._reclaimer)
        self.set_workers(self.workers)

    def watch_requests(self, fd: int) -> None:
        """`fd` is readable while requests wait: workers let them go first."""
        self._requests.register(fd, select.POLLIN)

    def unwatch_requests(self, fd: int) -> None:
        self._requests.unregister(fd)

    # --- commit ---
    def kick(self) -> None:
        """Ask for what the journal wants; called after operations and when somebody waits."""
        journal = self.store.journal
        if journal.wants_commit:
            self._commit_asked.set()
        if journal.wants_checkpoint:
            self._checkpoint_asked.set()

    def after_operation(self) -> None:
        """Cheap: called after each operation."""
        journal = self.store.journal
        if 2 * len(journal.running.images) > journal.transaction_blocks_max:
            self._commit_asked.set()
        self._operations += 1
        if not self._operations % 16:
            memory = self.store.memory
            if memory.used > _RECLAIM_START * (memory.limit_bytes - memory.reserve_bytes):
                self._reclaim_asked.set()

    async def commit_all(self) -> None:
        """Wait until everything applied before this call is durable. Joins the running commit; EIO after an abort."""
        journal = self.store.journal
        if self.store.read_only:
            return
        target = journal.running.tid if not journal.running.empty else journal.running.tid - 1
        if journal.committed_tid >= target:
            await self.flush()
            return
        await self.commit_through(target)

    async def commit_through(self, target: int) -> None:
        """Wait until transaction `target` is durable."""
        journal = self.store.journal
        while journal.committed_tid < target:
            if journal.aborted is not None:
                raise FsError(errno.EIO, f"journal aborted: {journal.aborted}")
            self._commit_asked.set()
            await self._committed.wait()

    async def release_freed(self) -> None:
        """Wait until what was freed before this call may be used again: committed, and no checkpoint writing
        there.
        """
        await self.commit_all()
        if self.store.journal.release_later:
            await self._checkpointed.wait()

    async def write_back(self) -> None:
        """Make dirty blocks evictable: commit, and wait for a checkpoint to bring them home."""
        await self.commit_all()
        if self.store.journal.pending_home:
            self._checkpoint_asked.set()
            await self._checkpointed.wait()

    async def flush(self) -> None:
        """A barrier on the device; a failure aborts the journal."""
        journal = self.store.journal
        if journal.aborted is not None:
            raise FsError(errno.EIO, f"journal aborted: {journal.aborted}")
        try:
            await trio.to_thread.run_sync(self.runtime.device.flush)
        except OSError as error:
            journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error

    async def _committer(self) -> None:
        journal = self.store.journal
        while True:
            with trio.move_on_after(self.commit_seconds):
                await self._commit_asked.wait()
            self._commit_asked = trio.Event()
            if journal.running.empty:
                self.serve_grants()
                continue
            await self.commit_once()

    async def commit_once(self) -> None:
        """One commit, and everybody who waited for it woken."""
        journal = self.store.journal
        try:
            await run_job(self.runtime.device, commit(journal, self.store.clock(), discard=self.discard))
        except FsError as error:
            log.error("%s; the filesystem is read-only from now on", error.detail)
        self._wake_committed()
        self.serve_grants()
        self.kick()

    def _wake_committed(self) -> None:
        event, self._committed = self._committed, trio.Event()
        event.set()

    # --- log space ---
    def serve_grants(self) -> None:
        """Wake those whose log space is there."""
        journal = self.store.journal
        for grant in journal.serve():
            event = self._grants.pop(grant, None)
            if event is not None:
                event.set()
        if journal.aborted is not None:
            for event in self._grants.values():
                event.set()
            self._grants.clear()

    async def wait_granted(self, grant: Grant) -> None:
        """Wait in order of arrival until the log space is set aside. EROFS after an abort."""
        event = self._grants[grant] = trio.Event()
        self._commit_asked.set()
        self._checkpoint_asked.set()
        try:
            await event.wait()
        finally:
            self._grants.pop(grant, None)
        if not grant.granted:
            raise FsError(errno.EROFS)

    # --- checkpoint ---
    async def _checkpointer(self) -> None:
        journal = self.store.journal
        while True:
            await self._checkpoint_asked.wait()
            self._checkpoint_asked = trio.Event()
            if journal.committed and journal.aborted is None and not self.stopped:
                try:
                    await run_job(self.runtime.device, checkpoint(journal, self.store.clock()))
                except FsError as error:
                    log.error("%s; the filesystem is read-only from now on", error.detail)
                    self._wake_committed()
            event, self._checkpointed = self._checkpointed, trio.Event()
            event.set()
            self.serve_grants()
            self.kick()

    # --- inodegc ---
    def _wake_gc(self) -> None:
        self._gc_wake.set()
        if self.runtime.volume.gc.queued >= _GC_BATCH:
            self._gc_hurry.set()

    def push_gc(self) -> None:
        """Start the workers on what is queued, without waiting."""
        self._gc_hurry.set()
        self._gc_wake.set()

    def queue_trim(self, ino: int) -> None:
        """Trim a file's blocks past EOF in the background."""
        self._trims[ino] = None
        self._gc_wake.set()

    @property
    def has_gc_work(self) -> bool:
        return bool(self.runtime.volume.gc.backlog or self._trims or self._busy_workers or self.store.recovered)

    def set_workers(self, count: int) -> None:
        """Change the size of the worker pool."""
        assert self._nursery is not None
        self.workers = count
        while len(self._worker_scopes) > count:
            self._worker_scopes.pop().cancel()
        while len(self._worker_scopes) < count:
            scope = trio.CancelScope()
            self._worker_scopes.append(scope)
            self._nursery.start_soon(self._worker, scope)

    async def _worker(self, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                if not await self._work_once():
                    if not self._busy_workers:
                        self._gc_idle.set()
                    self._gc_wake = trio.Event() if self._gc_wake.is_set() else self._gc_wake
                    await self._gc_wake.wait()
                    await self._gather()

    async def _gather(self) -> None:
        """Let a batch come together, unless somebody waits, or memory or space is short."""
        memory, space = self.store.memory, self.store.space
        short = memory.used > _RECLAIM_START * memory.limit_bytes or space.free_blocks < space.blocks // 20
        if not short and self.runtime.volume.gc.queued < _GC_BATCH and not self._gc_hurry.is_set():
            with trio.move_on_after(_GC_DELAY_SECONDS):
                await self._gc_hurry.wait()

    async def _work_once(self) -> bool:
        """Take a batch and clean it up; False when there is nothing to do. Not cancelled within a batch."""
        gc = self.runtime.volume.gc
        if gc.head is None and self.store.recovered:
            self._adopt_orphans()
        batch = gc.take(_GC_BATCH)
        if not batch and not self._trims:
            if self._gc_hurry.is_set():
                self._gc_hurry = trio.Event()
            return False
        self._busy_workers += 1
        try:
            with trio.CancelScope(shield=True):
                for inode in batch:
                    await self._inactivate_queued(inode)
                if self._trims:
                    ino = next(iter(self._trims))
                    del self._trims[ino]
                    await self._trim_quietly(ino)
                    await self._end_turn()
        finally:
            self._busy_workers -= 1
        return True

    async def _inactivate_queued(self, inode: InCoreInode) -> None:
        gc = self.runtime.volume.gc
        try:
            await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            gc.failed(inode)
        else:
            gc.done(inode)

    async def inactivate(self, inode: InCoreInode) -> None:
        """Run one inactivation to its end, yielding between transactions when its turn is over."""
        inactivation = Inactivation(self.runtime.volume.inodes, inode)
        if not inactivation.begin():
            return
        while not await self.runtime.run_reserved(inactivation.step):
            await self._end_turn()
        inactivation.finish()
        await self._end_turn()

    async def _end_turn(self) -> None:
        """Between two transactions: when the turn has lasted long enough, others run first."""
        if time.perf_counter_ns() - self._turn_start > GC_TURN_NS:
            await self.yield_to_requests()
            self._turn_start = time.perf_counter_ns()

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        """Inline: the caller waits. What fails is left to inodegc, so that no inode is lost."""
        try:
            await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.runtime.volume.inodes.retry(inode):
                self.runtime.volume.gc.enqueue(inode)

    async def trim(self, ino: int) -> None:
        """Free a file's blocks past EOF."""
        volume = self.runtime.volume
        while not await self.runtime.run_reserved(lambda plan: files.trim(plan, volume, ino)):
            await self._end_turn()

    async def _trim_quietly(self, ino: int) -> None:
        try:
            await self.trim(ino)
        except FsError as error:
            if error.errno != errno.ESTALE:
                log.warning("trimming inode %d failed: %s", ino, error)

    async def yield_to_requests(self) -> None:
        """Let waiting requests run first, for a bounded number of turns."""
        for _ in range(_YIELDS_MAX):
            await trio.lowlevel.checkpoint()
            if not self._requests.poll(0):
                return

    async def flush_gc(self) -> None:
        """Wait until the backlog of this moment is gone."""
        while self.has_gc_work:
            self.push_gc()
            self._gc_idle = trio.Event()
            if not self._worker_scopes:
                if not await self._work_once():
                    return
                continue
            await self._gc_idle.wait()

    def _adopt_orphans(self) -> None:
        """Queue a part of what the orphan table held at mount, so that the rest costs no in-core inode yet."""
        volume = self.runtime.volume
        batch = self.store.recovered[-_GC_BATCH:]
        del self.store.recovered[-_GC_BATCH:]
        for _, slot in batch:
            due = volume.inodes.orphaned(slot.ino, slot.generation, 0)
            if due is not None:
                volume.gc.enqueue(due)

    # --- memory ---
    async def _reclaimer(self) -> None:
        memory = self.store.memory
        while True:
            await self._reclaim_asked.wait()
            self._reclaim_asked = trio.Event()
            while True:
                over = memory.used - int(_RECLAIM_STOP * (memory.limit_bytes - memory.reserve_bytes))
                if over <= 0:
                    break
                freed = await self.runtime.shrink(min(over, 1 << 18))
                if not freed and self.kernel_cache is not None:
                    freed = await self.kernel_cache.trim()
                await trio.lowlevel.checkpoint()
                if not freed:
                    # all that is left is dirty or in use: bring it home
                    self._commit_asked.set()
                    self._checkpoint_asked.set()
                    break

    # --- the end ---
    async def drain_and_close(self) -> None:
        """Drop all references, inactivate (for a bounded time; the rest stays in the orphan table), close the
        image.
        """
        volume = self.runtime.volume
        if self.store.read_only:
            return
        for inode in volume.inodes.drop_all():
            volume.gc.enqueue(inode)
        with trio.move_on_after(_DRAIN_SECONDS):
            await self.flush_gc()
        for ino in list(self._trims):
            await self._trim_quietly(ino)
        self._trims.clear()
        self.set_workers(0)
        self.stopped = True
        journal = self.store.journal
        try:
            await self.commit_all()
            while journal.committing is not None:
                await self._committed.wait()
            while journal.checkpointing:
                await self._checkpointed.wait()
            if self.runtime.corruptions_total:
                await run_job(self.runtime.device, mark_errors(self.store))
            await run_job(self.runtime.device, close_store(self.store))
        except FsError as error:
            log.error("image left with a log to replay: %s", error.detail)
