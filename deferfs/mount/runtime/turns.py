"""The waits of cleanup, in whichever task it runs: for progress, and for a moment to begin, which comes early when
cleanup is waited for.

The engine decides what is cleaned up, and what follows a failure (`volume/cleanup.py`), when a transaction begins and
when others run (`volume/turns.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.waits import Timing
from deferfs.volume import waits

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.incoming import IncomingRequests
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.volume.engine import Engine


class Turns:
    """For the transactions of inodegc, in whichever task they run."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments, incoming: IncomingRequests) -> None:
        engine.turns.requests_queued = incoming.pending
        self.pace = engine.turns.pace
        self.pace.clock = _now_ns
        self.inactivations = Timing()
        """Durations of inactivations, from the first step to the end, in whichever task."""
        self.hurry = Pulse()
        """Set when cleanups are waited for or requested, until no work is left."""
        self._cleanup = engine.cleanup
        self._clock = engine.volume.gc.clock
        self._activity = instruments.activity
        self._progress = Pulse()
        engine.now_ns = time.perf_counter_ns
        engine.cleanup.on_step = self._stepped
        engine.cleanup.on_inactivated = self._inactivated
        tasks.register(
            {
                waits.Paced: self._wait_hurry,
                waits.StoodBack: self._wait_hurry,
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

    async def _wait_hurry(self, wait: waits.Wait) -> None:
        """Wait until cleanup is waited for, or the time has passed."""
        if not wait.over():
            with trio.move_on_after(wait.seconds_max):
                await self.hurry.wait()


def _now_ns() -> int:
    return int(trio.current_time() * 1e9)
