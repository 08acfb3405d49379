"""Commits and checkpoints of a mount: two background tasks, and the waits for what they do.

**Invariants**
- One commit and one checkpoint at a time, each in its own task; what needs them asks and waits for a pulse. What
  writes the image by itself (freeze, unmount) does it inside `quiet`, where neither runs nor begins.
- A failed commit aborts the journal: every waiter is woken and gets EIO.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import CLEANUP_DIRTY_FRACTION, DIRTY_WAIT_SECONDS_MAX, WRITE_BACK_FRACTION
from deferfs.mount.runtime.jobs import flush_device, run_job
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.lockdep import CHECKPOINT, COMMIT, LOG_SPACE
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.store.io import Job
    from deferfs.store.store import Store

log = logging.getLogger(__name__)

_LOOK_OPERATIONS = 16
"""So many operations pass from one look at the memory to the next."""


class Committer:
    """The tasks around one store. Durations in seconds."""

    def __init__(
        self, device: Device, store: Store, instruments: Instruments, *, commit_seconds: float, discard: bool
    ) -> None:
        self.store = store
        self.commit_seconds = commit_seconds
        self.discard = discard
        self.stopped = False
        self.when_done: list[Callable[[], None]] = []
        """Called after each commit and checkpoint: log space may have become free, the journal may be aborted."""
        self.when_memory_changed: list[Callable[[], None]] = []
        """Called when dirty blocks have come home, and once in a while as operations go by."""
        self._device = device
        self._instruments = instruments
        self._checker = instruments.checker
        self._commit_asked, self._checkpoint_asked = Pulse(), Pulse()
        self._committed, self._checkpointed = Pulse(), Pulse()
        self._released = Pulse()
        """The end of a commit or of a checkpoint: either may make freed blocks reusable."""
        self._homeward = Pulse()
        """Something has come home: less may be dirty."""
        self.store.journal.on_home = self._homeward.beat
        self._commit_turn, self._checkpoint_turn = trio.Lock(), trio.Lock()
        self._operations = 0

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        nursery.start_soon(self._run_commits)
        nursery.start_soon(self._run_checkpoints)

    def stop(self) -> None:
        """The image is about to be closed: no checkpoint begins any more."""
        self.stopped = True

    # --- asking ---
    def ask(self) -> None:
        """Have a commit and a checkpoint done soon: an operation waits for what they give back."""
        self._commit_asked.set()
        self._checkpoint_asked.set()

    def kick(self) -> None:
        """Ask for what the journal wants."""
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
        if not self._operations % _LOOK_OPERATIONS:
            memory = self.store.memory
            if self.store.dirty_bytes > memory.limit_bytes // WRITE_BACK_FRACTION:
                self._commit_asked.set()
                if journal.pending_home:
                    self._checkpoint_asked.set()
            _call(self.when_memory_changed)

    # --- durability ---
    async def sync(self) -> None:
        """Everything applied so far becomes durable, timed as a wait."""
        with self._instruments.waits.measure("commit"):
            await self.commit_all()

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """The file becomes durable: by the running commit when its metadata changed, else by a flush."""
        with self._instruments.waits.measure("commit"):
            tid = self.store.journal.uncommitted(ino, data_only=data_only)
            if tid:
                await self.commit_through(tid)
            else:
                await self.flush()

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
            self._require_working()
            self._commit_asked.set()
            self._checker.might_wait("commit")
            await self._committed.wait()

    async def flush(self) -> None:
        """A barrier on the device; a failure aborts the journal."""
        self._require_working()
        self._checker.might_wait("io")
        try:
            await flush_device(self._device)
        except OSError as error:
            self.store.journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error

    def _require_working(self) -> None:
        aborted = self.store.journal.aborted
        if aborted is not None:
            raise FsError(errno.EIO, f"journal aborted: {aborted}")

    # --- what comes back ---
    async def release_freed(self) -> None:
        """Wait until some of what was freed before may be used again: committed, the device told of it, and no
        checkpoint writing there. EIO after an abort."""
        journal, space = self.store.journal, self.store.space
        seen = space.epoch
        while space.pending_blocks and space.epoch == seen:
            self._require_working()
            if not journal.running.empty:
                self._commit_asked.set()
            self._checker.might_wait("checkpoint" if journal.release_later else "commit")
            await self._released.wait()

    async def write_back(self) -> None:
        """Make dirty blocks evictable: commit, and wait for a checkpoint to bring them home."""
        await self.commit_all()
        if self.store.journal.pending_home:
            self._checkpoint_asked.set()
            self._checker.might_wait("checkpoint")
            await self._checkpointed.wait()

    async def less_dirty(self, bytes_max: int) -> None:
        """Wait until no more than `bytes_max` are dirty, or nothing is left that could come home, and not longer than
        DIRTY_WAIT_SECONDS_MAX."""
        journal = self.store.journal
        if self.store.dirty_bytes <= bytes_max:
            return
        self._checker.might_wait("checkpoint")
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

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """Inside, everything applied before is committed, and no commit or checkpoint runs or begins."""
        self._checker.might_wait("checkpoint")
        await self.commit_all()
        async with self._commit_turn, self._checkpoint_turn:
            yield

    # --- commits ---
    async def _run_commits(self) -> None:
        journal = self.store.journal
        while True:
            with trio.move_on_after(self.commit_seconds):
                await self._commit_asked.wait()
            self._commit_asked.clear()
            if journal.running.empty or journal.aborted is not None:
                self._wake_committed()
                _call(self.when_done)
                continue
            await self._commit_once()

    async def _commit_once(self) -> None:
        """One commit, and every task woken that waited for it."""
        journal = self.store.journal
        try:
            async with self._commit_turn:
                with self._instruments.working("commit", COMMIT, LOG_SPACE):
                    await run_job(self._device, commit(journal, self.store.clock(), discard=self.discard))
        except FsError as error:
            log.error("%s; the filesystem is read-only from now on", error.detail)
        self._wake_committed()
        _call(self.when_done)
        self.kick()

    def _wake_committed(self) -> None:
        self._committed.beat()
        self._released.beat()
        self._homeward.beat()

    # --- checkpoints ---
    async def _run_checkpoints(self) -> None:
        while True:
            await self._checkpoint_asked.wait()
            self._checkpoint_asked.clear()
            if await self._checkpoint_once():
                _call(self.when_memory_changed)  # what was dirty can go now
            self._checkpointed.beat()
            self._released.beat()
            _call(self.when_done)
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
                with self._instruments.working("checkpoint", CHECKPOINT, LOG_SPACE):
                    await run_job(self._device, self._home_job())
            except FsError as error:
                log.error("%s; the filesystem is read-only from now on", error.detail)
                self._wake_committed()
        return comes_home

    def _home_job(self) -> Job[int]:
        """Bring home what is committed: with the tail of the log where log space is wanted, else for its memory."""
        journal = self.store.journal
        return checkpoint(journal, self.store.clock()) if journal.wants_checkpoint else bring_home(journal)


def _call(subscribers: list[Callable[[], None]]) -> None:
    for subscriber in subscribers:
        subscriber()
