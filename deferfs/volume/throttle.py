"""Backpressure: a caller that adds to inodegc's backlog while it costs too much waits for a while.

**Invariants**
- Only operations that may orphan an inode are throttled, before they plan anything: no caller waits here with a
  transaction, a grant or a block held, nor in reclaim context.
- First come, first served; each waits for at most `deadline_seconds`; a caller that is being killed leaves at once.
- A caller waits only while inodegc runs: a stop lets all go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.limits import (
    THROTTLE_AGE_SECONDS,
    THROTTLE_BYTES,
    THROTTLE_DEADLINE_SECONDS,
    THROTTLE_EXTENTS,
    THROTTLE_INODES,
)
from deferfs.volume.waits import Admitted, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


def _nothing() -> None:
    """No driver waits."""


class Ticket:
    """A place in the queue. The driver may set `wake`, which is called once, when it is `admitted`."""

    __slots__ = ("admitted", "wake")

    def __init__(self) -> None:
        self.admitted = False
        self.wake: Callable[[], None] = _nothing


class Throttle:
    """Limits on the backlog, live-tunable. `inodes`, `extents`: counts; `bytes`; `age_seconds` of the oldest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._gc = engine.volume.gc
        self.inodes: int = THROTTLE_INODES
        self.bytes: int = THROTTLE_BYTES
        self.extents: int = THROTTLE_EXTENTS
        self.age_seconds: float = THROTTLE_AGE_SECONDS
        self.deadline_seconds: float = THROTTLE_DEADLINE_SECONDS
        self.expired_total = 0
        self.killed_total = 0
        self._waiters: deque[Ticket] = deque()

    @property
    def waiting(self) -> int:
        """Callers that are held back now."""
        return len(self._waiters)

    def reason(self) -> str:
        """Which limit the backlog exceeds: `inodes`, `bytes`, `extents` or `age`; empty when none."""
        gc = self._gc
        queued = gc.queued
        if not queued:
            return ""
        if queued > self.inodes:
            return "inodes"
        if self._engine.volume.inodes.pending_blocks * self._engine.store.fmt.block_size > self.bytes:
            return "bytes"
        if gc.extents > self.extents:
            return "extents"
        oldest = gc.oldest_ns()
        if oldest and gc.clock() - oldest > self.age_seconds * 1e9:
            return "age"
        return ""

    def must_wait(self) -> bool:
        """Whether one more caller has to queue. None does while inodegc is stopped: the backlog would not become
        shorter."""
        return bool(self._waiters or self.reason()) and not self._engine.cleanup.stopped

    def admit(self, pid: int = 0) -> Task[None]:
        """Wait while the backlog costs too much, or while others wait already. FsError(EINTR) when the caller, thread
        `pid`, is being killed."""
        if not self.must_wait():
            return
        self._engine.checker.might_wait("throttle")
        ticket = Ticket()
        self._waiters.append(ticket)
        self._engine.cleanup.push()
        try:
            with self._engine.measure("throttle"):
                try:
                    yield Admitted(ticket, pid, self.deadline_seconds)
                except FsError:
                    self.killed_total += 1
                    raise
            if not ticket.admitted:
                self.expired_total += 1
        finally:
            if ticket in self._waiters:
                self._waiters.remove(ticket)

    def release(self) -> None:
        """Let all go: inodegc rests, and they would wait for nothing."""
        while self._waiters:
            self._admit_first()

    def progress(self) -> None:
        """The backlog became shorter: let those go that have waited longest, one for each inode the limit allows."""
        left = self.inodes - self._gc.queued
        while self._waiters and left > 0 and not self.reason():
            self._admit_first()
            left -= 1

    def _admit_first(self) -> None:
        ticket = self._waiters.popleft()
        ticket.admitted = True
        ticket.wake()
