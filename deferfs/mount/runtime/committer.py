"""Commits and checkpoints of a mount: two background tasks, and the waits for what they do.

**Invariants**
- One commit and one checkpoint at a time, each in its own task; what needs them asks and waits for a pulse. What
  writes the image by itself (freeze, unmount) does it in `_run_alone`, where neither runs nor begins.
- A failed commit aborts the journal: every waiter is woken and gets EIO.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import WRITE_BACK_FRACTION
from deferfs.mount.runtime.jobs import run_job
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.lockdep import CHECKPOINT, COMMIT, LOG_SPACE
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.volume.waits import Alone, Committed, Granted, LessDirty, Released

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.store.io import Job
    from deferfs.store.plan import Plan
    from deferfs.store.transaction import Grant
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)

_LOOK_OPERATIONS = 16
"""So many operations pass from one look at the memory to the next."""


class Committer:
    """The tasks around one store. Durations in seconds."""

    def __init__(
        self,
        device: Device,
        engine: Engine,
        tasks: TaskDriver,
        instruments: Instruments,
        *,
        commit_seconds: float,
        discard: bool,
    ) -> None:
        self.store = engine.store
        self.commit_seconds = commit_seconds
        self.discard = discard
        self.stopped = False
        self.when_memory_changed: list[Callable[[], None]] = []
        """Called when dirty blocks have come home, and once in a while as operations go by."""
        self._device = device
        self._engine = engine
        self._instruments = instruments
        self._commit_asked, self._checkpoint_asked = Pulse(), Pulse()
        self._committed = Pulse()
        self._released = Pulse()
        """Set at the end of a commit or checkpoint: either may make freed blocks reusable."""
        self._homeward = Pulse()
        """Set when home writes have returned: fewer blocks may be dirty."""
        self.store.journal.on_home = self._homeward.beat
        self._commit_turn, self._checkpoint_turn = trio.Lock(), trio.Lock()
        self._granted: dict[Grant, trio.Event] = {}
        self._operations = 0
        engine.after = self._after_operation
        tasks.register(
            {
                Granted: self._wait_granted,
                Committed: self._wait_committed,
                Released: self._wait_released,
                LessDirty: self._wait_less_dirty,
                Alone: self._run_alone,
            }
        )

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

    def _after_operation(self, _: Plan) -> None:
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

    # --- the waits for them ---
    async def _wait_granted(self, wait: Granted) -> None:
        event = self._granted[wait.grant] = trio.Event()
        wait.grant.wake = event.set
        self.ask()
        try:
            if not wait.over():
                await event.wait()
        finally:
            del self._granted[wait.grant]

    def _serve_log_space(self) -> None:
        self._engine.log_space.serve()
        if self.store.journal.aborted is not None:
            for event in self._granted.values():
                event.set()

    async def _wait_committed(self, wait: Committed) -> None:
        while not wait.over():
            self._commit_asked.set()
            await self._committed.wait()

    async def _wait_released(self, wait: Released) -> None:
        while not wait.over():
            if not self.store.journal.running.empty:
                self._commit_asked.set()
            await self._released.wait()

    async def _wait_less_dirty(self, wait: LessDirty) -> None:
        with trio.move_on_after(wait.seconds_max):
            while not wait.over() and not self.stopped:
                (self._checkpoint_asked if self.store.journal.pending_home else self._commit_asked).set()
                await self._homeward.wait()

    async def _run_alone(self, wait: Alone) -> None:
        async with self._commit_turn, self._checkpoint_turn:
            await run_job(self._device, wait.job)

    # --- commits ---
    async def _run_commits(self) -> None:
        journal = self.store.journal
        while True:
            with trio.move_on_after(self.commit_seconds):
                await self._commit_asked.wait()
            self._commit_asked.clear()
            if journal.running.empty or journal.aborted is not None:
                self._wake_committed()
                self._serve_log_space()
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
        self._serve_log_space()
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
            self._released.beat()
            self._serve_log_space()
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
