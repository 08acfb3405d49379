"""The background tasks of a mount beside inodegc: committer, checkpointer, reclaimer; and the end of a mount.

**Invariants**
- One commit and one checkpoint at a time, each in its own task; whoever needs them asks and waits for an event. Who
  writes the image by himself (freeze, unmount) does it inside `quiet`, where neither runs nor begins.
- A failed commit aborts the journal: every waiter is woken and gets EIO.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.errors import FsError
from deferfs.limits import CLEANUP_DIRTY_FRACTION, DIRTY_WAIT_SECONDS_MAX, UNMOUNT_DRAIN_SECONDS
from deferfs.mount.runtime.jobs import flush_device, run_job
from deferfs.mount.runtime.log_space import CircularWaitError
from deferfs.reclaim.lockdep import CHECKPOINT, COMMIT, LOG_SPACE
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.store.store import close_store, mark_errors

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime
    from deferfs.store.io import Job
    from deferfs.store.journal import Grant

log = logging.getLogger(__name__)

_RECLAIM_START = 0.9
_RECLAIM_STOP = 0.8
_WRITE_BACK_FRACTION = 8
"""Write-back begins when an eighth of the budget is dirty: half of what an operation that needs memory waits for."""
_PRESSURE_SHARE = 8
"""An eighth of the caches goes at each event; there is one every two seconds at most while pressure lasts."""


class EntryCache(Protocol):
    """The kernel's cache of directory entries (`fuse.kernel_cache.KernelCache`)."""

    async def trim(self) -> int:
        """Have some of it dropped; the bytes that this will free in core."""


class Background:
    """Tasks around one runtime. Durations in seconds."""

    def __init__(self, runtime: Runtime, *, commit_seconds: float, discard: bool, reclaims: bool = True) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self.commit_seconds = commit_seconds
        self.discard = discard
        self.reclaims = reclaims
        """Whether the reclaimer works. Off, all reclaim is direct, as in a memory cgroup, which has no kswapd."""
        self.drain_seconds: float = UNMOUNT_DRAIN_SECONDS
        self.kernel_cache: EntryCache | None = None
        """Asks the kernel to drop entries when the in-core inodes it holds exceed the budget."""
        self._commit_asked = trio.Event()
        self._committed = trio.Event()
        self._checkpoint_asked = trio.Event()
        self._checkpointed = trio.Event()
        self._released = trio.Event()
        """The end of a commit or of a checkpoint: either may make freed blocks reusable."""
        self._homeward = trio.Event()
        """Something has come home: less may be dirty."""
        self.store.journal.on_home = self._wake_homeward
        self._commit_turn, self._checkpoint_turn = trio.Lock(), trio.Lock()
        self._grants: dict[Grant, trio.Event] = {}
        self._reclaim_asked = trio.Event()
        self._pressed_to = 0
        """Bytes that the kernel's memory pressure asks us to come down to; 0: there is none."""
        self._operations = 0
        self.stopped = False

    def start(self, nursery: trio.Nursery) -> None:
        """Start all tasks; a read-only mount needs none."""
        if self.store.read_only:
            return
        nursery.start_soon(self._committer)
        nursery.start_soon(self._checkpointer)
        nursery.start_soon(self._reclaimer)

    # --- commit ---
    def kick(self) -> None:
        """Ask for what the journal wants; called after operations and when somebody waits."""
        journal = self.store.journal
        if journal.aborted is not None or self.stopped:
            return  # nobody would do it, and be asked again at once
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
            if self.store.dirty_bytes > memory.limit_bytes // _WRITE_BACK_FRACTION:
                self._commit_asked.set()
                if journal.pending_home:
                    self._checkpoint_asked.set()
            self._look_at_memory()

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
            self.runtime.checker.might_wait("commit")
            await self._committed.wait()

    async def release_freed(self) -> None:
        """Wait until some of what was freed before may be used again: committed, the device told of it, and no
        checkpoint writing there. EIO after an abort."""
        journal, space = self.store.journal, self.store.space
        seen = space.epoch
        while space.pending_blocks and space.epoch == seen:
            if journal.aborted is not None:
                raise FsError(errno.EIO, f"journal aborted: {journal.aborted}")
            if not journal.running.empty:
                self._commit_asked.set()
            self.runtime.checker.might_wait("checkpoint" if journal.release_later else "commit")
            await self._released.wait()

    async def write_back(self) -> None:
        """Make dirty blocks evictable: commit, and wait for a checkpoint to bring them home."""
        await self.commit_all()
        if self.store.journal.pending_home:
            self._checkpoint_asked.set()
            self.runtime.checker.might_wait("checkpoint")
            await self._checkpointed.wait()

    async def less_dirty(self, bytes_max: int) -> None:
        """Wait until no more than `bytes_max` are dirty, or nothing is left that could come home, and not longer than
        DIRTY_WAIT_SECONDS_MAX."""
        journal = self.store.journal
        if self.store.dirty_bytes <= bytes_max:
            return
        self.runtime.checker.might_wait("checkpoint")
        with trio.move_on_after(DIRTY_WAIT_SECONDS_MAX):
            while self.store.dirty_bytes > bytes_max and journal.aborted is None and not self.stopped:
                if journal.pending_home:
                    self._checkpoint_asked.set()
                elif not journal.running.empty or journal.committing is not None:
                    self._commit_asked.set()
                else:
                    return
                await self._homeward.wait()

    async def within_share_of_cleanup(self) -> None:
        """Wait until no more is dirty than cleanup may make so; as `less_dirty`."""
        await self.less_dirty(self.store.memory.limit_bytes // CLEANUP_DIRTY_FRACTION)

    def _wake_homeward(self) -> None:
        event, self._homeward = self._homeward, trio.Event()
        event.set()

    async def flush(self) -> None:
        """A barrier on the device; a failure aborts the journal."""
        journal = self.store.journal
        if journal.aborted is not None:
            raise FsError(errno.EIO, f"journal aborted: {journal.aborted}")
        self.runtime.checker.might_wait("io")
        try:
            await flush_device(self.runtime.device)
        except OSError as error:
            journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Inside, everything applied before is committed, and no commit or checkpoint runs or begins."""
        self.runtime.checker.might_wait("checkpoint")
        await self.commit_all()
        async with self._commit_turn, self._checkpoint_turn:
            yield

    async def _committer(self) -> None:
        journal = self.store.journal
        while True:
            with trio.move_on_after(self.commit_seconds):
                await self._commit_asked.wait()
            self._commit_asked = trio.Event()
            if journal.running.empty or journal.aborted is not None:
                self._wake_committed()
                self.serve_grants()
                continue
            await self.commit_once()

    async def commit_once(self) -> None:
        """One commit, and everybody who waited for it woken."""
        journal = self.store.journal
        try:
            async with self._commit_turn:
                with self.runtime.working("commit", COMMIT, LOG_SPACE):
                    await run_job(self.runtime.device, commit(journal, self.store.clock(), discard=self.discard))
        except FsError as error:
            log.error("%s; the filesystem is read-only from now on", error.detail)
        self._wake_committed()
        self.serve_grants()
        self.kick()

    def _wake_committed(self) -> None:
        event, self._committed = self._committed, trio.Event()
        event.set()
        self._wake_released()
        self._wake_homeward()

    def _wake_released(self) -> None:
        event, self._released = self._released, trio.Event()
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
        while (refused := self.runtime.circles.look()) is not None:
            if refused in self._grants:
                self._grants.pop(refused).set()

    async def wait_granted(self, grant: Grant) -> None:
        """Wait in order of arrival until the log space is set aside. EROFS after an abort, CircularWaitError when it
        never will be."""
        event = self._grants[grant] = trio.Event()
        self._commit_asked.set()
        self._checkpoint_asked.set()
        try:
            if not grant.refused:
                await event.wait()
        finally:
            self._grants.pop(grant, None)
        if grant.refused:
            raise CircularWaitError
        if not grant.granted:
            raise FsError(errno.EROFS)

    # --- checkpoint ---
    async def _checkpointer(self) -> None:
        while True:
            await self._checkpoint_asked.wait()
            self._checkpoint_asked = trio.Event()
            if await self._checkpoint_once():
                self._look_at_memory()  # what was dirty can go now
            event, self._checkpointed = self._checkpointed, trio.Event()
            event.set()
            self._wake_released()
            self.serve_grants()
            self.kick()

    async def _checkpoint_once(self) -> bool:
        """Bring home what is committed. Whether there was anything."""
        journal = self.store.journal
        async with self._checkpoint_turn:
            if not journal.committed or journal.aborted is not None or self.stopped:
                return False
            comes_home = bool(journal.pending_home)
            if not comes_home and not journal.wants_checkpoint:
                return False
            try:
                with self.runtime.working("checkpoint", CHECKPOINT, LOG_SPACE):
                    await run_job(self.runtime.device, self._home_job())
            except FsError as error:
                log.error("%s; the filesystem is read-only from now on", error.detail)
                self._wake_committed()
        return comes_home

    def _home_job(self) -> Job[int]:
        """Bring home what is committed: with the tail of the log where log space is wanted, else for its memory."""
        journal = self.store.journal
        return checkpoint(journal, self.store.clock()) if journal.wants_checkpoint else bring_home(journal)

    # --- memory ---
    def _look_at_memory(self) -> None:
        memory = self.store.memory
        if self.reclaims and memory.used > _RECLAIM_START * (memory.limit_bytes - memory.reserve_bytes):
            self._reclaim_asked.set()

    def set_memory(self, limit_bytes: int) -> None:
        """Set the budget; one below what is in use is reached by the reclaimer, and needs no operation for it."""
        self.store.memory.set_limit(limit_bytes)
        self._look_at_memory()

    async def _reclaimer(self) -> None:
        memory = self.store.memory
        while True:
            await self._reclaim_asked.wait()
            self._reclaim_asked = trio.Event()
            while self.reclaims:
                goal = int(_RECLAIM_STOP * (memory.limit_bytes - memory.reserve_bytes))
                if self._pressed_to:
                    goal = min(goal, self._pressed_to)
                over = memory.used - goal
                if over <= 0:
                    break
                freed = await self.runtime.background_reclaim(min(over, 1 << 18))
                if not freed and self.kernel_cache is not None:
                    freed = await self.kernel_cache.trim()
                await trio.lowlevel.checkpoint()
                if not freed:
                    # all that is left is dirty or in use: bring it home
                    self._commit_asked.set()
                    self._checkpoint_asked.set()
                    break
            self._pressed_to = 0

    def set_reclaims(self, reclaims: bool) -> None:
        """Switch the reclaimer on or off; on, it looks at once."""
        self.reclaims = reclaims
        if reclaims:
            self._reclaim_asked.set()

    def under_pressure(self) -> None:
        """The kernel is short of memory: give a part of ours back, and clean up without delay. With the reclaimer off
        the memory stays, until an operation needs it."""
        self._pressed_to = max(1, self.store.memory.used * (_PRESSURE_SHARE - 1) // _PRESSURE_SHARE)
        self._reclaim_asked.set()
        self.runtime.workers.push()

    # --- the end ---
    async def drain_and_close(self) -> None:
        """Drop all references, inactivate (for a bounded time; the rest stays in the orphan table), close the
        image.
        """
        volume = self.runtime.volume
        if self.store.read_only:
            return
        async with self.runtime.freezer.ended():
            self.runtime.workers.resume()
            self.runtime.forgets.stop()
            for inode in volume.inodes.drop_all():
                volume.gc.enqueue(inode)
            with trio.move_on_after(self.drain_seconds):
                await self.runtime.workers.flush()
            await self.runtime.workers.stop()
            await self.runtime.blockgc.stop()
            left = self.runtime.workers.gc.backlog
            if left:
                log.info("%d deleted files are left to the next mount", left)
            await self._close_image()

    async def _close_image(self) -> None:
        """Nothing changes it any more."""
        self.stopped = True
        try:
            async with self.quiet():
                if self.runtime.corruptions_total:
                    await run_job(self.runtime.device, mark_errors(self.store))
                await run_job(self.runtime.device, close_store(self.store))
        except FsError as error:
            log.error("image left with a log to replay: %s", error.detail)
