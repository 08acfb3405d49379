"""One inactivation after the other, by whatever task: a worker of inodegc, or a request under the inline policy.

**Invariant:** `stop` returns when no inactivation runs, whichever task began it, and none begins before `resume`. One
that is told to stop leaves off between two transactions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import GC_TURN_NS
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.quarantine import Quarantine
from deferfs.mount.runtime.waits import Timing
from deferfs.volume.inactivation import Inactivation
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.pace import Pace
from deferfs.reclaim.states import State

if TYPE_CHECKING:
    from deferfs.mount.runtime.committer import Committer
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.mount.runtime.incoming import IncomingRequests
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.mount.runtime.urgency import Urgency
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)

_YIELDS_MAX = 8
"""Turns in a row that an inactivation leaves to waiting requests before it takes its own."""
_PACE_LOOK_SECONDS = 0.05
"""How often a worker that keeps to its pace looks whether memory or space has become short."""


class Cleanup:
    """Runs inactivations, and retries or sets aside those that fail."""

    def __init__(
        self,
        volume: Volume,
        run_reserved: RunReserved,
        instruments: Instruments,
        committer: Committer,
        urgency: Urgency,
        incoming: IncomingRequests,
    ) -> None:
        self.gc = volume.gc
        self.stopped = False
        self.pace = Pace(_now_ns)
        self.inactivations = Timing()
        """From the first step of an inactivation to its end, whichever task ran it."""
        self.quarantine = Quarantine(volume, run_reserved)
        self.when_progressed: list[Callable[[], None]] = []
        """Called when a step has been applied, or an inactivation has ended."""
        self.when_stopped: list[Callable[[], None]] = []
        """Called when inodegc begins to rest: there will be no progress."""
        self._inodes = volume.inodes
        self._journal = volume.store.journal
        self._run_reserved = run_reserved
        self._activity = instruments.activity
        self._checker = instruments.checker
        self._committer = committer
        self._urgency = urgency
        self._incoming = incoming
        self._progress = Pulse()
        self._resumed = Pulse()
        self._busy = 0
        """Inactivations that run now, with what follows a failure."""
        self._turn_start = 0

    # --- rest ---
    async def stop(self) -> None:
        """Have every inactivation leave off, and wait until none runs; none begins before `resume`."""
        if not self.stopped:
            self.stopped = True
            self._resumed.clear()
            self._urgency.hurry.set()
            for subscriber in self.when_stopped:
                subscriber()
        self._checker.might_wait("drain")
        while self._busy:
            await self._progress.wait()

    def resume(self) -> None:
        """Go on after a `stop`."""
        self.stopped = False
        self._resumed.set()

    async def resumed(self) -> None:
        """Wait for the `resume` after a `stop`."""
        await self._resumed.wait()

    @property
    def is_busy(self) -> bool:
        """Whether any inactivation runs."""
        return self._busy > 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What a stop waits for."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.tell()

    async def progress(self) -> None:
        """Wait until a step of an inactivation has been applied, or one has ended."""
        await self._progress.wait()

    def tell(self) -> None:
        """Wake what waits for progress, or until the backlog is shorter."""
        for subscriber in self.when_progressed:
            subscriber()
        self._progress.beat()

    # --- who runs one ---
    async def inactivate_taken(self, inode: InCoreInode) -> None:
        """A worker has taken it from its queue. What fails is tried again later, and set aside in the end."""
        with self.at_work():
            await self._keep_pace()
            await self._within_means()
            await self._try_taken(inode)

    async def _try_taken(self, inode: InCoreInode) -> None:
        try:
            finished = await self.inactivate(inode, background=not self._urgency.pressed, deferred=True)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.gc.failed(inode):
                await self.quarantine.remember(inode)
        else:
            if finished:
                self.gc.done(inode)
            else:
                self.gc.leave_off(inode)

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        """Inline: the caller waits. What fails, or may not run now, is left to inodegc, so that no inode is lost."""
        with self.at_work():
            await self._try_inline(inode)

    async def _try_inline(self, inode: InCoreInode) -> None:
        try:
            finished = await self.inactivate(inode)
        except FsError as error:
            log.warning("inactivation of inode %d failed: %s", inode.ino, error)
            if self.gc.failed_inline(inode):
                await self.quarantine.remember(inode)
            return
        if not finished:
            self._inodes.interrupt(inode)
            if inode.state is State.NEED_INACTIVE:
                self.gc.enqueue(inode)

    # --- the inactivation ---
    async def inactivate(self, inode: InCoreInode, *, background: bool = False, deferred: bool = False) -> bool:
        """Run one inactivation to its end, yielding between transactions when its turn is over; in the `background`,
        where nobody waits for it, to whoever waits for anything. One that is `deferred` keeps to its share of dirty
        blocks.

        False when the pool was told to stop before: the inode is INACTIVATING still, or was not begun.
        """
        inactivation = Inactivation(self._inodes, inode)
        if self._told_to_stop():
            return False
        if not inactivation.begin():
            return True
        start = time.perf_counter_ns()
        while not await self._run_reserved(inactivation.step):
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
        self._activity.inactivated(inode, start, self.gc.clock())
        if background:
            self.pace.spend()
        await self.end_turn(background=background)
        return True

    def _told_to_stop(self) -> bool:
        return self.stopped

    async def _keep_pace(self) -> None:
        """Before a transaction nobody waits for: not faster than the pace."""
        while (left_ns := self.pace.wait_ns()) and not self._urgency.wanted and not self.stopped:
            with trio.move_on_after(min(left_ns / 1e9, _PACE_LOOK_SECONDS)):
                await self._urgency.hurry.wait()

    async def _within_means(self) -> None:
        """Before a transaction, with nothing held: wait until no more than the share of cleanup is dirty, unless an
        operation waits for it, or space is short."""
        if not self._urgency.waited_for and not self._urgency.short_of_space and not self.stopped:
            await self._committer.within_share_of_cleanup()

    async def end_turn(self, *, background: bool) -> None:
        """Between two transactions: when the turn has lasted long enough, waiting requests run first, for a bounded
        number of turns. In the background they need not wait for the end of a turn, nor does a commit."""
        waits = background and (self._incoming.pending() or self._journal.committing is not None)
        if not waits and time.perf_counter_ns() - self._turn_start <= GC_TURN_NS:
            return
        for _ in range(_YIELDS_MAX):
            await trio.lowlevel.checkpoint()
            if not self._incoming.pending():
                break
        self._turn_start = time.perf_counter_ns()


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
