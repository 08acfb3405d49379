"""Backpressure: who adds to inodegc's backlog while it costs too much waits for a while.

**Invariants**
- Only operations that may orphan an inode are throttled, before they plan anything: nobody waits here with a
  transaction, a grant or a block held, nor in reclaim context.
- First come, first served; each waits for at most `deadline_seconds`; a caller that is being killed leaves at once.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

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
    from deferfs.mount.runtime.instruments import Instruments

LOOK_SECONDS: Final = 0.05
"""How often a waiter looks whether its caller is being killed: FUSE does not tell a handler that."""


class Backlog(Protocol):
    """What waits to be cleaned up (`reclaim.gc.InodeGc`)."""

    @property
    def queued(self) -> int:
        """Inodes in the queues."""

    @property
    def extents(self) -> int:
        """Theirs."""

    def oldest_ns(self) -> int:
        """When the oldest of them was queued; 0 when there is none."""

    @property
    def clock(self) -> Callable[[], int]:
        """Which has stamped that, in ns."""


class Cleaner(Protocol):
    """What makes the backlog shorter (`GcWorkers`)."""

    @property
    def stopped(self) -> bool:
        """Whether it rests: then it makes nothing shorter."""

    def push(self) -> None:
        """Begin without delay."""


class Throttle:
    """Limits on the backlog, live-tunable. `inodes`, `extents`: counts; `bytes`; `age_seconds` of the oldest."""

    def __init__(
        self,
        backlog: Backlog,
        pending_bytes: Callable[[], int],
        cleaner: Cleaner,
        instruments: Instruments,
        being_killed: Callable[[int], bool],
    ) -> None:
        """`pending_bytes` tells what the backlog will give back, `being_killed` whether a thread is."""
        self._backlog = backlog
        self._pending_bytes = pending_bytes
        self._cleaner = cleaner
        self._checker, self._waits = instruments.checker, instruments.waits
        self._being_killed = being_killed
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
        backlog = self._backlog
        queued = backlog.queued
        if not queued:
            return ""
        if queued > self.inodes:
            return "inodes"
        if self._pending_bytes() > self.bytes:
            return "bytes"
        if backlog.extents > self.extents:
            return "extents"
        oldest = backlog.oldest_ns()
        if oldest and backlog.clock() - oldest > self.age_seconds * 1e9:
            return "age"
        return ""

    async def admit(self, pid: int) -> None:
        """Wait while the backlog costs too much, or while others wait already. FsError(EINTR) when the caller, thread
        `pid`, is being killed."""
        if not self._waiters and not self.reason():
            return
        if self._cleaner.stopped:
            return  # nobody would ever make it shorter
        self._checker.might_wait("throttle")
        event = trio.Event()
        self._waiters.append(event)
        self._cleaner.push()
        try:
            with self._waits.measure("throttle"):
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
            if self._being_killed(pid):
                self.killed_total += 1
                raise FsError(errno.EINTR)

    def release(self) -> None:
        """Let all go: inodegc rests, and they would wait for nothing."""
        while self._waiters:
            self._waiters.popleft().set()

    def progress(self) -> None:
        """The backlog became shorter: let those go who have waited longest, one for each inode there is room for."""
        room = self.inodes - self._backlog.queued
        while self._waiters and room > 0 and not self.reason():
            self._waiters.popleft().set()
            room -= 1
