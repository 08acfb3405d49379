"""Throttling of operations that add to the backlog of inodegc: the awaits of `volume/throttle.py`.

**Invariant:** an operation stops waiting when its caller is being killed, which FUSE does not report to a handler.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from deferfs.errors import FsError
from deferfs.volume.waits import Admitted

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.volume.engine import Engine

LOOK_SECONDS: Final = 0.05
"""Interval at which a waiter checks whether its caller is being killed."""


class Admission:
    """Admits operations. `being_killed` tells whether a thread is being killed."""

    def __init__(self, engine: Engine, tasks: TaskDriver, being_killed: Callable[[int], bool]) -> None:
        self._throttle = engine.throttle
        self._drive = tasks.drive
        self._being_killed = being_killed
        tasks.register({Admitted: self._wait})

    async def admit(self, pid: int) -> None:
        """Wait while the backlog is over a limit, or others are waiting already. FsError(EINTR) when thread `pid` is
        being killed."""
        if self._throttle.must_wait():
            await self._drive(self._throttle.admit(pid))

    async def _wait(self, wait: Admitted) -> None:
        admitted = trio.Event()
        wait.ticket.wake = admitted.set
        deadline = trio.current_time() + wait.seconds_max
        while not wait.over():
            left = deadline - trio.current_time()
            if left <= 0:
                return
            with trio.move_on_after(min(left, LOOK_SECONDS)):
                await admitted.wait()
                return
            if self._being_killed(wait.pid):
                raise FsError(errno.EINTR)
