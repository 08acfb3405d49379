"""The workers of inodegc: each takes batches from its own queue and cleans them up. When it does, and how many at a
time, the engine decides (`volume/workers.py`, `cleanup.py`).

**Invariants**
- A worker is never cancelled inside a batch. When the pool is told to stop, it stops between two transactions; the
  inodes it had taken are queued again, and are in the orphan table in any case.
- `stop` returns when no inactivation runs, and none begins before `resume`. Enqueueing goes on meanwhile; `resume` sees
  what was queued.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume import quarantine
from deferfs.volume.waits import Gathered

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.mount.runtime.turns import Turns
    from deferfs.volume.engine import Engine


class GcWorkers:
    """A pool of `count` worker tasks, and the barriers that wait for what is queued or owed."""

    def __init__(
        self,
        engine: Engine,
        tasks: TaskDriver,
        instruments: Instruments,
        turns: Turns,
        count: int,
    ) -> None:
        self.gc = engine.volume.gc
        self.count = count
        self.pace = turns.pace
        self.inactivations = turns.inactivations
        self._engine = engine
        self._cleanup = engine.cleanup
        self._drive = tasks.drive
        self._activity = instruments.activity
        self._workers = engine.workers
        self._turns = turns
        self._nursery: trio.Nursery | None = None
        self._scopes: list[trio.CancelScope] = []
        self._wakes: list[Pulse] = []
        self._gathered = Pulse()
        engine.workers.requests = lambda: instruments.requests.events
        tasks.register({Gathered: self._wait_gathered})

    # --- the pool ---
    def start(self, nursery: trio.Nursery) -> None:
        """Start the workers."""
        self._nursery = nursery
        self._workers.on_queued = self._queued
        self._workers.on_idle = self._turns.hurry.clear
        self._cleanup.on_push = self._pushed
        quarantine.report(self._engine)
        self.set_count(self.count)

    def set_count(self, count: int) -> None:
        """Change the size of the pool: a queue for each worker."""
        assert self._nursery is not None
        self.count = count
        while len(self._scopes) > count:
            self._scopes.pop().cancel()
        while len(self._wakes) < count:
            self._wakes.append(Pulse())
        self.gc.resize(count)
        while len(self._scopes) < count:
            scope = trio.CancelScope()
            self._scopes.append(scope)
            self._nursery.start_soon(self._worker, len(self._scopes) - 1, scope)

    @property
    def stopped(self) -> bool:
        """Whether inodegc is stopped."""
        return self._cleanup.stopped

    async def stop(self) -> None:
        """Stop every inactivation between two transactions, and wait until none runs; none begins before `resume`."""
        await self._drive(self._cleanup.stop())

    def resume(self) -> None:
        """Undo `stop`, and start with the inodes queued meanwhile. FsError: EBUSY when frozen, EROFS when read-only."""
        self._cleanup.resume()

    # --- the queues ---
    def _queued(self, number: int) -> None:
        self._wakes[number % len(self._wakes)].set()
        if self.gc.wanted_out_of_turn:
            self._turns.hurry.set()
        if self._workers.gathered:
            self._gathered.beat()

    def push(self) -> None:
        """Clean up and pay everything queued or owed without delay. Failed inodes keep their delay."""
        self._cleanup.push()

    def _pushed(self) -> None:
        if not self._cleanup.pushed:
            return
        self._turns.hurry.set()
        self._gathered.beat()
        for number in range(self.count):
            if self.gc.has_work(number):
                self._wakes[number].set()

    @property
    def has_work(self) -> bool:
        """Whether anything is queued or being cleaned up."""
        return self._cleanup.has_work

    async def progress(self) -> None:
        """Wait until a step of an inactivation has been applied, or one has ended."""
        await self._turns.progress()

    async def flush(self) -> None:
        """Wait until nothing is queued, nor waits to be tried again."""
        await self._drive(self._cleanup.flush())

    async def flush_inode(self, ino: int) -> None:
        """Wait until one inode is cleaned up, out of turn."""
        await self._drive(self._cleanup.flush_inode(ino))

    async def flush_below(self, ino: int) -> None:
        """Wait for what was deleted in directory `ino`, and in directories below it that were deleted too."""
        await self._drive(self._cleanup.flush_below(ino))

    async def release_quarantine(self) -> None:
        """Try everything in quarantine once more, now or at the next mount."""
        await self._drive(self._cleanup.release_quarantine())

    # --- the workers ---
    async def _worker(self, number: int, scope: trio.CancelScope) -> None:
        self._activity.be(f"inodegc {number}")
        with scope:
            while number < self.count:
                if self.stopped:
                    await self._turns.progress()
                    continue
                await self._drive(self._workers.stand_back(number))
                if number >= self.count or await self._work_once(number):
                    continue
                self._wakes[number].clear()
                with trio.move_on_after(self._until_retry()):
                    await self._wakes[number].wait()
                if number < self.count:
                    await self._drive(self._workers.gather(number))

    def _until_retry(self) -> float:
        left_ns = self.gc.retry_due()
        return left_ns / 1e9 if left_ns else float("inf")

    async def _wait_gathered(self, wait: Gathered) -> None:
        with trio.move_on_after(wait.seconds_max):
            while not wait.over():
                await self._gathered.wait()

    async def _work_once(self, number: int) -> bool:
        """Take a batch and clean it up; False when there is nothing to do."""
        with trio.CancelScope(shield=True):
            return await self._drive(self._workers.batch(number))
        raise AssertionError("a batch was cancelled")
