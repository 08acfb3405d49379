"""Scheduling of inodegc's transactions: requests go first, the pace is kept, and tasks that wait for progress are
woken.

The engine decides what is cleaned up, and what follows a failure (`volume/cleanup.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from deferfs.limits import GC_TURN_NS
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.waits import Timing
from deferfs.volume import waits

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.incoming import IncomingRequests
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.volume.engine import Engine

_YIELDS_MAX = 8
"""Passes of the event loop in a row that an inactivation yields to queued requests before it continues."""
_PACE_LOOK_SECONDS = 0.05
"""Interval at which a worker that waits for its pace checks whether memory or space has become short."""


class Turns:
    """For the transactions of inodegc, in whichever task they run."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments, incoming: IncomingRequests) -> None:
        self.pace = engine.workers.pace
        self.pace.clock = _now_ns
        self.inactivations = Timing()
        """Durations of inactivations, from the first step to the end, in whichever task."""
        self.hurry = Pulse()
        """Set when cleanups are waited for or requested, until no work is left."""
        self._cleanup = engine.cleanup
        self._clock = engine.volume.gc.clock
        self._journal = engine.store.journal
        self._activity = instruments.activity
        self._incoming = incoming
        self._progress = Pulse()
        self._turn_start = 0
        engine.now_ns = time.perf_counter_ns
        engine.cleanup.on_step = self._stepped
        engine.cleanup.on_inactivated = self._inactivated
        tasks.register(
            {
                waits.Pace: self._keep_pace_before,
                waits.StepDone: self._step_done,
                waits.EndOfTurn: self._end_turn_of,
                waits.Cleaned: self.wait_over,
                waits.Drained: self.wait_over,
            }
        )

    def _stepped(self) -> None:
        if self._cleanup.pushed or self._cleanup.stopped:
            self.hurry.set()
        self._progress.beat()

    def _inactivated(self, inode: InCoreInode, start_ns: int) -> None:
        self.inactivations.add(time.perf_counter_ns() - start_ns)
        self._activity.inactivated(inode, start_ns, self._clock())

    async def progress(self) -> None:
        """Wait until a step has been applied, or inodegc is stopped or resumed."""
        await self._progress.wait()

    async def wait_over(self, wait: waits.Wait) -> None:
        """Wait for what a step of cleanup may bring about."""
        with trio.move_on_after(wait.seconds_max):
            while not wait.over():
                await self._progress.wait()

    async def _keep_pace_before(self, _: waits.Pace) -> None:
        await self.keep_pace()

    async def _step_done(self, wait: waits.StepDone) -> None:
        if wait.last and wait.background:
            self.pace.spend()
        await self.end_turn(background=wait.background)
        if wait.background and not wait.last:
            self.pace.spend()
            await self.keep_pace()

    async def _end_turn_of(self, wait: waits.EndOfTurn) -> None:
        await self.end_turn(background=wait.background)

    async def keep_pace(self) -> None:
        """Before a background transaction: wait as the pace demands."""
        cleanup = self._cleanup
        while (left_ns := self.pace.wait_ns()) and not cleanup.wanted() and not cleanup.stopped:
            with trio.move_on_after(min(left_ns / 1e9, _PACE_LOOK_SECONDS)):
                await self.hurry.wait()

    async def end_turn(self, *, background: bool) -> None:
        """Between two transactions: when the turn has lasted long enough, yield to queued requests, for a bounded
        number of passes. In the background, requests and a commit need not wait for the end of a turn."""
        gives_way = background and (self._incoming.pending() or self._journal.committing is not None)
        if not gives_way and time.perf_counter_ns() - self._turn_start <= GC_TURN_NS:
            return
        for _ in range(_YIELDS_MAX):
            await trio.lowlevel.checkpoint()
            if not self._incoming.pending():
                break
        self._turn_start = time.perf_counter_ns()


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
