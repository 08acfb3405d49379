"""The workers of inodegc: each takes batches from its own queue and cleans them up (`cleanup.py`).

**Invariants**
- A worker is never cancelled inside a batch. When the pool is told to stop it leaves off between two transactions:
  what it had taken waits again, and stands in the orphan table anyway.
- `stop` returns when no inactivation runs, and none begins before `resume`. Enqueueing goes on meanwhile; `resume` sees
  what was queued.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import GC_BATCH, GC_DELAY_SECONDS, GC_LOOK_SECONDS, GC_LOOKS_MAX
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.gc import unfinished
from deferfs.reclaim.lockdep import GC_DRAIN
from deferfs.volume import orphans

if TYPE_CHECKING:
    from deferfs.mount.runtime.cleanup import Cleanup
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.mount.runtime.payer import Payer
    from deferfs.mount.runtime.urgency import Urgency
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)


class GcWorkers:
    """A pool of `count` worker tasks, and the barriers that wait for what is queued or owed (`payer`)."""

    def __init__(
        self,
        volume: Volume,
        run_reserved: RunReserved,
        instruments: Instruments,
        cleanup: Cleanup,
        payer: Payer,
        urgency: Urgency,
        count: int,
    ) -> None:
        self.gc = volume.gc
        self.count = count
        self.delay_seconds = GC_DELAY_SECONDS
        self.pace = cleanup.pace
        self.inactivations = cleanup.inactivations
        self._volume = volume
        self._debts = volume.inodes.debts
        self._spill = volume.spill
        self._run_reserved = run_reserved
        self._activity = instruments.activity
        self._checker = instruments.checker
        self._requests = instruments.requests
        self._cleanup = cleanup
        self._payer = payer
        self._urgency = urgency
        self._nursery: trio.Nursery | None = None
        self._scopes: list[trio.CancelScope] = []
        self._wakes: list[Pulse] = []
        self._gathered = Pulse()
        """A batch is there, or must not gather any longer."""
        self._requests_seen: dict[int, int] = {}
        """Requests there had been when a worker looked last."""

    # --- the pool ---
    def start(self, nursery: trio.Nursery) -> None:
        """Start the workers."""
        self._nursery = nursery
        self.gc.wake = self._queued
        self._cleanup.quarantine.tell()
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
        """Whether inodegc rests."""
        return self._cleanup.stopped

    async def stop(self) -> None:
        """Have every inactivation leave off, and wait until none runs; none begins before `resume`."""
        await self._cleanup.stop()

    def resume(self) -> None:
        """Go on after a `stop`, with what was queued meanwhile."""
        self._cleanup.resume()
        self.push()

    # --- the queues ---
    def _queued(self, number: int) -> None:
        self._wakes[number % len(self._wakes)].set()
        if self.gc.wanted_out_of_turn:
            self._urgency.hurry.set()
        if self.gc.wanted_out_of_turn or self.gc.queues[number % len(self.gc.queues)].depth >= GC_BATCH:
            self._gathered.set()

    def push(self) -> None:
        """Have what is queued, owed, or being worked on, done without delay. What has failed keeps its pause."""
        self._payer.hurry()
        if not self.gc.queued and not self.gc.running:
            return
        self._urgency.hurry.set()
        self._gathered.set()
        if self.gc.queued:
            for wake in self._wakes:
                wake.set()

    @property
    def has_work(self) -> bool:
        """Whether anything is queued or being cleaned up."""
        return bool(self.gc.backlog or self._cleanup.is_busy)

    async def progress(self) -> None:
        """Wait until a step of an inactivation has been applied, or one has ended."""
        await self._cleanup.progress()

    async def flush(self) -> None:
        """Wait until nothing is queued, nor waits to be tried again."""
        self._checker.might_wait("drain")
        while self.has_work or self._payer.has_work:
            self.push()
            await self.progress()

    async def flush_inode(self, ino: int) -> None:
        """Wait until one inode waits for nothing; the others keep their places."""
        while self._debts.owes(ino) and self._payer.has_work and not self.stopped:
            self.push()
            await self.progress()
        while True:
            inode = self._volume.inodes.table.get(ino)
            if inode is None and not await self._reload_one(ino):
                return
            if inode is None:
                continue
            if not unfinished(inode):
                return
            if not self.gc.hasten([inode]):
                self.push()  # a worker has it
            await self.progress()

    async def flush_below(self, ino: int) -> None:
        """Wait for what was deleted in directory `ino`, and in directories below it that were deleted too. Where names
        were is not known of what waits in the orphan table alone: all of that is waited for."""
        while self._spill.count:
            self.push()
            await self.progress()
        found = self.gc.below(ino)
        self.gc.hasten(found)
        for inode in found:
            await self.flush_inode(inode.ino)

    async def release_quarantine(self) -> None:
        """Try everything in quarantine once more, now or at the next mount."""
        await self._cleanup.quarantine.release()
        self.gc.release_quarantine()

    async def _reload_one(self, ino: int) -> bool:
        """Have an inode of which nothing is in core queued out of turn; False when it waits for no inactivation."""
        if not self._spill.count:
            return False
        try:
            return await self._run_reserved(partial(orphans.reload_one, volume=self._volume, ino=ino))
        except FsError:
            return False  # there is no such inode

    # --- the workers ---
    async def _worker(self, number: int, scope: trio.CancelScope) -> None:
        self._activity.be(f"inodegc {number}")
        with scope:
            while number < self.count:
                if self.stopped:
                    await self._cleanup.resumed()
                    continue
                await self._stand_back(number)
                if number >= self.count or await self._work_once(number):
                    continue
                self._wakes[number].clear()
                with trio.move_on_after(self._until_retry()):
                    await self._wakes[number].wait()
                if number < self.count:
                    await self._gather(number)

    def _until_retry(self) -> float:
        left_ns = self.gc.retry_due()
        return left_ns / 1e9 if left_ns else float("inf")

    async def _stand_back(self, number: int) -> None:
        """While requests stream in, cleaning up can wait: until they pause or it is pressed for, and only for so many
        looks."""
        if not self.gc.has_work(number):
            return
        for _ in range(GC_LOOKS_MAX):
            if self._requests.events == self._requests_seen.get(number) or self._urgency.pressed:
                return
            self._requests_seen[number] = self._requests.events
            with trio.move_on_after(GC_LOOK_SECONDS):
                await self._urgency.hurry.wait()

    async def _gather(self, number: int) -> None:
        """Let a batch come together, unless memory or space is short, or it must not gather any longer."""
        if (
            self._urgency.short
            or self.gc.queues[number].depth >= GC_BATCH
            or self._gathered.is_set
            or not self.delay_seconds
        ):
            return
        with trio.move_on_after(self.delay_seconds):
            await self._gathered.wait()

    async def _work_once(self, number: int) -> bool:
        """Take a batch and clean it up; False when there is nothing to do."""
        self.gc.retry_due()
        batch = self.gc.take(GC_BATCH if self._urgency.wanted else self.pace.batch(GC_BATCH), number)
        if not batch:
            if self._spill.count:
                await self._reload()
                return True
            if not self.gc.queued and not self.gc.running:
                self._urgency.hurry.clear()
                self._gathered.clear()
            self._cleanup.tell()
            return False
        with trio.CancelScope(shield=True), self._checker.holding("inodegc worker", GC_DRAIN):
            for inode in batch:
                await self._cleanup.inactivate_taken(inode)
        return True

    async def _reload(self) -> None:
        """Queue a batch of what waits in the orphan table alone."""
        with self._checker.holding("inodegc worker", GC_DRAIN):
            try:
                await self._run_reserved(partial(orphans.reload, volume=self._volume, count_max=GC_BATCH))
            except FsError as error:
                log.error("%s", orphans.give_up(self._volume, error))
        await trio.lowlevel.checkpoint()
        self._cleanup.tell()
