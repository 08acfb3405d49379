"""Backpressure: who adds to inodegc's backlog while it costs too much waits for a while.

**Invariants**
- Only operations that may orphan an inode are throttled, before they plan anything: nobody waits here with a
  transaction, a grant or a block held, nor in reclaim context.
- First come, first served; each waits for at most `deadline_seconds`; a caller that is being killed leaves at once.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from deferfs.errors import FsError
from deferfs.limits import (
    THROTTLE_AGE_SECONDS,
    THROTTLE_BYTES,
    THROTTLE_DEADLINE_SECONDS,
    THROTTLE_EXTENTS,
    THROTTLE_INODES,
)

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

LOOK_SECONDS: Final = 0.05
"""How often a waiter looks whether its caller is being killed: FUSE does not tell a handler that."""


class Throttle:
    """Limits on the backlog, live-tunable. `inodes`, `extents`: counts; `bytes`; `age_seconds` of the oldest."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.gc = runtime.volume.gc
        self.inodes = THROTTLE_INODES
        self.bytes = THROTTLE_BYTES
        self.extents = THROTTLE_EXTENTS
        self.age_seconds = THROTTLE_AGE_SECONDS
        self.deadline_seconds = THROTTLE_DEADLINE_SECONDS
        self.expired_total = 0
        self.killed_total = 0
        self._waiters: deque[trio.Event] = deque()

    @property
    def waiting(self) -> int:
        """Callers that are held back now."""
        return len(self._waiters)

    def reason(self) -> str:
        """Which limit the backlog exceeds: `inodes`, `bytes`, `extents` or `age`; empty when none."""
        gc = self.gc
        queued = gc.queued
        if not queued:
            return ""
        if queued > self.inodes:
            return "inodes"
        if self.runtime.volume.inodes.pending_blocks * self.runtime.store.fmt.block_size > self.bytes:
            return "bytes"
        if gc.extents > self.extents:
            return "extents"
        oldest = gc.oldest_ns()
        if oldest and gc.clock() - oldest > self.age_seconds * 1e9:
            return "age"
        return ""

    async def admit(self, pid: int) -> None:
        """Wait while the backlog costs too much, or while others wait already. FsError(EINTR) when the caller, thread
        `pid`, is being killed."""
        if not self._waiters and not self.reason():
            return
        if self.runtime.workers.stopped:
            return  # nobody would ever make it shorter
        self.runtime.checker.might_wait("throttle")
        event = trio.Event()
        self._waiters.append(event)
        self.runtime.workers.push()
        try:
            with self.runtime.waits.measure("throttle"):
                await self._wait(event, pid)
        finally:
            if event in self._waiters:
                self._waiters.remove(event)

    async def _wait(self, event: trio.Event, pid: int) -> None:
        deadline = trio.current_time() + self.deadline_seconds
        while not event.is_set():
            left = deadline - trio.current_time()
            if left <= 0:
                self.expired_total += 1
                return
            with trio.move_on_after(min(left, LOOK_SECONDS)):
                await event.wait()
                return
            if self.runtime.being_killed(pid):
                self.killed_total += 1
                raise FsError(errno.EINTR)

    def release(self) -> None:
        """Let all go: inodegc rests, and they would wait for nothing."""
        while self._waiters:
            self._waiters.popleft().set()

    def progress(self) -> None:
        """The backlog became shorter: let those go who have waited longest, one for each inode there is room for."""
        room = self.inodes - self.gc.queued
        while self._waiters and room > 0 and not self.reason():
            self._waiters.popleft().set()
            room -= 1
