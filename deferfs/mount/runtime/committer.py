"""Commits and checkpoints of a mount: two background tasks, and the waits for what they do. When one begins, and what
it does, the engine decides (`volume/write_back.py`).

**Invariants**
- One commit and one checkpoint at a time, each in its own task; what needs them asks and waits for a pulse. What
  writes the image by itself (freeze, unmount) does it in `_run_exclusively`, where neither runs nor begins.
- A failed commit aborts the journal: every waiter is woken and gets EIO.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.mount.runtime.jobs import run_job
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.lockdep import CHECKPOINT, COMMIT, LOG_SPACE
from deferfs.volume.waits import Committed, Exclusive, Granted, LessDirty, Released

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.store.io import Job
    from deferfs.store.transaction import Grant
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


class Committer:
    """The tasks around one store."""

    def __init__(self, device: Device, engine: Engine, tasks: TaskDriver, instruments: Instruments) -> None:
        self.store = engine.store
        self._device = device
        self._write_back = engine.write_back
        self._instruments = instruments
        self._commit_asked, self._checkpoint_asked = Pulse(), Pulse()
        self._committed = Pulse()
        self._released = Pulse()
        """Set at the end of a commit or checkpoint: either may make freed blocks reusable."""
        self._homeward = Pulse()
        """Set when home writes have returned: fewer blocks may be dirty."""
        self.store.journal.on_home = self._homeward.beat
        self._commit_lock, self._checkpoint_lock = trio.Lock(), trio.Lock()
        self._granted: dict[Grant, trio.Event] = {}
        self._eviction = engine.eviction
        self._waiting = 0
        """Waits for a commit, for freed blocks, or for log space."""
        engine.write_back.on_commit = self._commit_asked.set
        engine.write_back.on_checkpoint = self._checkpoint_asked.set
        tasks.register(
            {
                Granted: self._wait_granted,
                Committed: self._wait_committed,
                Released: self._wait_released,
                LessDirty: self._wait_less_dirty,
                Exclusive: self._run_exclusively,
            }
        )

    def start(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        nursery.start_soon(self._run_commits)
        nursery.start_soon(self._run_checkpoints)

    # --- the waits for them ---
    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _is_waited_for(self) -> bool:
        """Whether an operation waits for a commit or checkpoint, or for an inactivation that does."""
        return self._waiting > 0 or not self._eviction.defers

    async def _wait_granted(self, wait: Granted) -> None:
        event = self._granted[wait.grant] = trio.Event()
        wait.grant.wake = event.set
        self._write_back.ask_for(wait)
        try:
            if not wait.over():
                with self._counted():
                    await event.wait()
        finally:
            del self._granted[wait.grant]

    async def _wait_committed(self, wait: Committed) -> None:
        with self._counted():
            while not wait.over():
                self._write_back.ask_for(wait)
                await self._committed.wait()

    async def _wait_released(self, wait: Released) -> None:
        with self._counted():
            while not wait.over():
                self._write_back.ask_for(wait)
                await self._released.wait()

    async def _wait_less_dirty(self, wait: LessDirty) -> None:
        with trio.move_on_after(wait.seconds_max):
            while not wait.over():
                self._write_back.ask_for(wait)
                await self._homeward.wait()

    async def _run_exclusively(self, wait: Exclusive) -> None:
        async with self._commit_lock, self._checkpoint_lock:
            await run_job(self._device, wait.job)

    def _wake_all_after_an_abort(self) -> None:
        if self.store.journal.aborted is not None:
            for pulse in (self._committed, self._released, self._homeward):
                pulse.beat()
            for event in self._granted.values():
                event.set()

    # --- commits ---
    async def _run_commits(self) -> None:
        write_back = self._write_back
        while True:
            with trio.move_on_after(write_back.commit_seconds) as patience:
                await self._commit_asked.wait()
            self._commit_asked.clear()
            async with self._commit_lock:
                job = write_back.commit_due(late=patience.cancelled_caught)
                if job is not None:
                    await self._run("commit", COMMIT, job)
            for pulse in (self._committed, self._released, self._homeward):
                pulse.beat()
            write_back.commit_ended()
            self._wake_all_after_an_abort()

    # --- checkpoints ---
    async def _run_checkpoints(self) -> None:
        write_back = self._write_back
        while True:
            await self._checkpoint_asked.wait()
            self._checkpoint_asked.clear()
            async with self._checkpoint_lock:
                job = write_back.checkpoint_due()
                if job is not None:
                    await self._run("checkpoint", CHECKPOINT, job)
            self._released.beat()
            write_back.checkpoint_ended()
            self._wake_all_after_an_abort()

    async def _run(self, name: str, lock_class: str, job: Job[int]) -> None:
        try:
            with self._instruments.working(name, lock_class, LOG_SPACE):
                await run_job(self._device, job, self._is_waited_for)
        except FsError as error:
            log.error("%s; the filesystem is read-only from now on", error.detail)
