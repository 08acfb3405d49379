"""The workers of inodegc: each takes batches from its own queue and runs the inactivations.

**Invariants**
- A worker is never cancelled inside a batch. When the pool is told to stop it leaves off between two transactions:
  what it had taken waits again, and stands in the orphan table anyway.
- `stop` returns when no inactivation runs, whoever began it, and none begins before `start`. Enqueueing goes on
  meanwhile; `start` sees what was queued.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import (
    GC_BATCH,
    GC_DELAY_SECONDS,
    GC_LOOK_SECONDS,
    GC_LOOKS_MAX,
    GC_STAND_BACK_INODES,
    GC_TURN_NS,
)
from deferfs.mount.runtime import quarantine
from deferfs.mount.runtime.waits import Timing
from deferfs.reclaim.gc import unfinished
from deferfs.reclaim.inactivation import Inactivation
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.lockdep import GC_DRAIN
from deferfs.reclaim.pace import Pace
from deferfs.reclaim.states import State
from deferfs.volume import orphans

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

log = logging.getLogger(__name__)

_YIELDS_MAX = 8
"""Turns in a row that a worker leaves to waiting requests before it takes its own."""
_PACE_LOOK_SECONDS = 0.05
"""How often a worker that keeps to its pace looks whether memory or space has become short."""
_SHORT_OF_MEMORY = 0.9
_SHORT_OF_SPACE = 20
"""Below one block in twenty a batch does not wait to grow."""


class GcWorkers:
    """A pool of worker tasks, and the inactivation as they and the inline policy run it."""

    def __init__(self, runtime: Runtime, count: int) -> None:
        self.runtime = runtime
        self.gc = runtime.volume.gc
        self.debts = runtime.volume.inodes.debts
        self.spill = runtime.volume.spill
        self.store = runtime.store
        self.count = count
        self.stopped = False
        self.delay_seconds = GC_DELAY_SECONDS
        self.pace = Pace(_now_ns)
        self.inactivations = Timing()
        """From the first step of an inactivation to its end, whoever ran it."""
        self._nursery: trio.Nursery | None = None
        self._scopes: list[trio.CancelScope] = []
        self._wakes: list[trio.Event] = []
        self._hurry = trio.Event()
        """Somebody waits, or has pushed."""
        self._gathered = trio.Event()
        """A batch is there, or must not gather any longer."""
        self._progress = trio.Event()
        self._resumed = trio.Event()
        self._busy = 0
        """Inactivations that run now, with what follows a failure."""
        self._requests = select.poll()
        self._turn_start = 0
        self._requests_seen: dict[int, int] = {}
        """Requests there had been when a worker looked last."""

    # --- the pool ---
    def start(self, nursery: trio.Nursery) -> None:
        """Start the workers."""
        self._nursery = nursery
        self.gc.wake = self._queued
        quarantine.tell(self.runtime)
        self.set_count(self.count)

    def set_count(self, count: int) -> None:
        """Change the size of the pool: a queue for each worker."""
        assert self._nursery is not None
        self.count = count
        while len(self._scopes) > count:
            self._scopes.pop().cancel()
        while len(self._wakes) < count:
            self._wakes.append(trio.Event())
        self.gc.resize(count)
        while len(self._scopes) < count:
            scope = trio.CancelScope()
            self._scopes.append(scope)
            self._nursery.start_soon(self._worker, len(self._scopes) - 1, scope)

    async def stop(self) -> None:
        """Have every inactivation leave off, and wait until none runs; none begins before `resume`."""
        if not self.stopped:
            self.stopped = True
            self._resumed = trio.Event()
            self._hurry.set()
            self.runtime.throttle.release()
        self.runtime.checker.might_wait("drain")
        while self._busy:
            await self._progress.wait()

    def resume(self) -> None:
        """Go on after a `stop`, with what was queued meanwhile."""
        self.stopped = False
        self._resumed.set()
        self.push()

    async def resumed(self) -> None:
        """Wait for the `resume` after a `stop`."""
        await self._resumed.wait()

    def watch_requests(self, fd: int) -> None:
        """`fd` is readable while requests wait: workers let them go first."""
        self._requests.register(fd, select.POLLIN)

    def unwatch_requests(self, fd: int) -> None:
        """The mount is gone: there will be no more requests."""
        self._requests.unregister(fd)

    def requests_wait(self) -> bool:
        """Whether the kernel has requests or FORGETs that nobody has read yet."""
        return bool(self._requests.poll(0))

    # --- the queues ---
    def _queued(self, number: int) -> None:
        self._wakes[number % len(self._wakes)].set()
        if self.gc.wanted_out_of_turn:
            self._hurry.set()
        if self.gc.wanted_out_of_turn or self.gc.queues[number % len(self.gc.queues)].depth >= GC_BATCH:
            self._gathered.set()

    def push(self) -> None:
        """Have what is queued, owed, or being worked on, done without delay. What has failed keeps its pause."""
        self.runtime.payer.hurry()
        if not self.gc.queued and not self.gc.running:
            return
        self._hurry.set()
        self._gathered.set()
        if self.gc.queued:
            for wake in self._wakes:
                wake.set()

    @property
    def has_work(self) -> bool:
        """Whether anything is queued or being cleaned up."""
        return bool(self.gc.backlog or self._busy)

    async def progress(self) -> None:
        """Wait until a step of an inactivation has been applied, or one has ended."""
        await self._progress.wait()

    async def flush(self) -> None:
        """Wait until nothing is queued, nor waits to be tried again."""
        self.runtime.checker.might_wait("drain")
        while self.has_work or self.runtime.payer.has_work:
            self.push()
            await self._progress.wait()

    async def flush_inode(self, ino: int) -> None:
        """Wait until one inode waits for nothing; the others keep their places."""
        while self.debts.owes(ino) and self.runtime.payer.has_work and not self.stopped:
            self.push()
            await self._progress.wait()
        while True:
            inode = self.runtime.volume.inodes.table.get(ino)
            if inode is None and not await self._reload_one(ino):
                return
            if inode is None:
                continue
            if not unfinished(inode):
                return
            if not self.gc.hasten([inode]):
                self.push()  # a worker has it
            await self._progress.wait()

    async def flush_below(self, ino: int) -> None:
        """Wait for what was deleted in directory `ino`, and in directories below it that were deleted too. Where names
        were is not known of what waits in the orphan table alone: all of that is waited for."""
        while self.spill.count:
            self.push()
            await self._progress.wait()
        found = self.gc.below(ino)
        self.gc.hasten(found)
        for inode in found:
            await self.flush_inode(inode.ino)

    async def _reload_one(self, ino: int) -> bool:
        """Have an inode of which nothing is in core queued out of turn; False when it waits for no inactivation."""
        if not self.spill.count:
            return False
        try:
            return await self.runtime.run_reserved(partial(orphans.reload_one, volume=self.runtime.volume, ino=ino))
        except FsError:
            return False  # there is no such inode

    # --- the workers ---
    async def _worker(self, number: int, scope: trio.CancelScope) -> None:
        self.runtime.activity.be(f"inodegc {number}")
        with scope:
            while number < self.count:
                if self.stopped:
                    await self._resumed.wait()
                    continue
                await self._stand_back(number)
                if number >= self.count or await self._work_once(number):
                    continue
                if self._wakes[number].is_set():
                    self._wakes[number] = trio.Event()
                with trio.move_on_after(self._until_retry()):
                    await self._wakes[number].wait()
                if number < self.count:
                    await self._gather(number)

    def _until_retry(self) -> float:
        left_ns = self.gc.retry_due()
        return left_ns / 1e9 if left_ns else float("inf")

    def _short(self) -> bool:
        """Whether memory or space is short."""
        memory = self.store.memory
        return memory.used > _SHORT_OF_MEMORY * memory.limit_bytes or self._short_of_space()

    def _short_of_space(self) -> bool:
        return self.store.space.free_blocks < self.store.space.blocks // _SHORT_OF_SPACE

    def _waited_for(self) -> bool:
        """Whether an operation, a barrier or a throttled caller waits for cleanups."""
        return bool(self._hurry.is_set() or self.gc.wanted_out_of_turn or self.runtime.throttle.waiting)

    def _wanted(self) -> bool:
        """Whether somebody waits for cleanups, or for what they give back."""
        return self._waited_for() or self._short()

    def _pressed(self) -> bool:
        """Whether somebody waits for cleanups, or will soon."""
        return self._wanted() or self.gc.queued > GC_STAND_BACK_INODES

    async def _stand_back(self, number: int) -> None:
        """While requests stream in, cleaning up can wait: until they pause or it is pressed for, and only for so many
        looks."""
        if not self.gc.has_work(number):
            return
        requests = self.runtime.requests
        for _ in range(GC_LOOKS_MAX):
            if requests.events == self._requests_seen.get(number) or self._pressed():
                return
            self._requests_seen[number] = requests.events
            with trio.move_on_after(GC_LOOK_SECONDS):
                await self._hurry.wait()

    async def _keep_pace(self) -> None:
        """Before a transaction nobody waits for: not faster than the pace."""
        while (left_ns := self.pace.wait_ns()) and not self._wanted() and not self.stopped:
            with trio.move_on_after(min(left_ns / 1e9, _PACE_LOOK_SECONDS)):
                await self._hurry.wait()

    async def _within_means(self) -> None:
        """Before a transaction, with nothing held: wait until no more than the share of cleanup is dirty, unless an
        operation waits for it, or space is short."""
        if not self._waited_for() and not self._short_of_space() and not self.stopped:
            await self.runtime.background.within_share_of_cleanup()

    async def _gather(self, number: int) -> None:
        """Let a batch come together, unless somebody waits, or memory or space is short."""
        if (
            self._short()
            or self.gc.queues[number].depth >= GC_BATCH
            or self._gathered.is_set()
            or not self.delay_seconds
        ):
            return
        with trio.move_on_after(self.delay_seconds):
            await self._gathered.wait()

    async def _work_once(self, number: int) -> bool:
        """Take a batch and clean it up; False when there is nothing to do."""
        self.gc.retry_due()
        batch = self.gc.take(GC_BATCH if self._wanted() else self.pace.batch(GC_BATCH), number)
        if not batch:
            if self.spill.count:
                await self._reload()
                return True
            if not self.gc.queued and not self.gc.running and (self._hurry.is_set() or self._gathered.is_set()):
                self._hurry, self._gathered = trio.Event(), trio.Event()
            self.tell()
            return False
        with trio.CancelScope(shield=True), self.runtime.checker.holding("inodegc worker", GC_DRAIN):
            for inode in batch:
                await self._inactivate_taken(inode)
        return True

    def tell(self) -> None:
        """Wake whoever waits for progress, or until the backlog is shorter."""
        if self.runtime.throttle.waiting:
            self.runtime.throttle.progress()
        if self._progress.statistics().tasks_waiting:
            event, self._progress = self._progress, trio.Event()
            event.set()

    async def _reload(self) -> None:
        """Queue a batch of what waits in the orphan table alone."""
        with self.runtime.checker.holding("inodegc worker", GC_DRAIN):
            try:
                await self.runtime.run_reserved(partial(orphans.reload, volume=self.runtime.volume, count_max=GC_BATCH))
            except FsError as error:
                log.error("%s", orphans.give_up(self.runtime.volume, error))
        await trio.lowlevel.checkpoint()
        self.tell()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What a stop waits for."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.tell()

    async def _inactivate_taken(self, inode: InCoreInode) -> None:
        with self.at_work():
            await self._keep_pace()
            await self._within_means()
            await self._try_taken(inode)

    async def _try_taken(self, inode: InCoreInode) -> None:
        try:
            finished = await self.inactivate(inode, background=not self._pressed(), deferred=True)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.gc.failed(inode):
                await quarantine.remember(self.runtime, inode)
        else:
            if finished:
                self.gc.done(inode)
            else:
                self.gc.leave_off(inode)

    async def release_quarantine(self) -> None:
        """Try everything in quarantine once more, now or at the next mount."""
        await quarantine.release(self.runtime)
        self.gc.release_quarantine()

    # --- the inactivation ---
    async def inactivate(self, inode: InCoreInode, *, background: bool = False, deferred: bool = False) -> bool:
        """Run one inactivation to its end, yielding between transactions when its turn is over; in the `background`,
        where nobody waits for it, to whoever waits for anything. One that is `deferred` keeps to its share of dirty
        blocks.

        False when the pool was told to stop before: the inode is INACTIVATING still, or was not begun.
        """
        inactivation = Inactivation(self.runtime.volume.inodes, inode)
        if self._told_to_stop():
            return False
        if not inactivation.begin():
            return True
        start = time.perf_counter_ns()
        while not await self.runtime.run_reserved(inactivation.step):
            self.tell()
            await self.end_turn(background=background)
            if background:
                self.pace.spend()
                await self._keep_pace()
            if deferred:
                await self._within_means()
            if self._told_to_stop():
                return False
        inactivation.finish()
        self.tell()
        self.inactivations.add(time.perf_counter_ns() - start)
        self.runtime.activity.inactivated(inode, start, self.gc.clock())
        if background:
            self.pace.spend()
        await self.end_turn(background=background)
        return True

    def _told_to_stop(self) -> bool:
        return self.stopped

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        """Inline: the caller waits. What fails, or may not run now, is left to inodegc, so that no inode is lost."""
        with self.at_work():
            await self._try_inline(inode)

    async def _try_inline(self, inode: InCoreInode) -> None:
        inodes = self.runtime.volume.inodes
        try:
            finished = await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.gc.failed_inline(inode):
                await quarantine.remember(self.runtime, inode)
            return
        if not finished:
            inodes.interrupt(inode)
            if inode.state is State.NEED_INACTIVE:
                self.gc.enqueue(inode)

    async def end_turn(self, *, background: bool) -> None:
        """Between two transactions: when the turn has lasted long enough, waiting requests run first, for a bounded
        number of turns. In the background they need not wait for the end of a turn, nor does a commit."""
        waits = background and (self._requests.poll(0) or self.store.journal.committing is not None)
        if not waits and time.perf_counter_ns() - self._turn_start <= GC_TURN_NS:
            return
        for _ in range(_YIELDS_MAX):
            await trio.lowlevel.checkpoint()
            if not self._requests.poll(0):
                break
        self._turn_start = time.perf_counter_ns()


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
