"""Backpressure: an operation that adds to inodegc's backlog while it is too large has to wait for a while.

**Invariants**
- Only operations that may orphan an inode are throttled, and before they plan anything: none waits here with a
  transaction, a grant or a block held, nor in reclaim context.
- Waiters are admitted in order of arrival; each waits for at most `deadline_seconds`; a killed process stops waiting.
- An operation waits only while inodegc runs: stopping it admits all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

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


Amount = Literal["inodes", "bytes", "extents"]
Duration = Literal["age_seconds", "deadline_seconds"]
"""The names of the limits: those of the attributes of `Throttle`."""


def _nothing() -> None:
    """Default of `wake`: no driver waits."""


class Ticket:
    """One waiter. The driver may set `wake`, which is called once, when it is `admitted`."""

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

    def set_amount(self, limit: Amount, amount: int) -> None:
        """Change a limit; what fits the new one is admitted."""
        setattr(self, limit, amount)
        self.progress()

    def set_duration(self, limit: Duration, seconds: float) -> None:
        """Change a limit; what fits the new one is admitted. A duration set as an amount would have the wrong type in
        compiled code, and the other way round."""
        setattr(self, limit, seconds)
        self.progress()

    @property
    def waiting(self) -> int:
        """Operations that are being throttled."""
        return len(self._waiters)

    def reason(self) -> str:
        """The limit that the backlog exceeds: `inodes`, `bytes`, `extents` or `age`; empty when none."""
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
        """Whether the next operation has to wait. Never while inodegc is stopped: the backlog would not shrink."""
        return bool(self._waiters or self.reason()) and not self._engine.cleanup.stopped

    def admit(self, pid: int = 0) -> Task[None]:
        """Wait while the backlog is over a limit, or others are waiting already. FsError(EINTR) when thread `pid` is
        being killed."""
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
        """Admit all: inodegc stops, and the backlog no longer shrinks."""
        while self._waiters:
            self._admit_first()

    def progress(self) -> None:
        """The backlog shrank: admit the oldest waiters, one for each inode below the limit."""
        left = self.inodes - self._gc.queued
        while self._waiters and left > 0 and not self.reason():
            self._admit_first()
            left -= 1

    def _admit_first(self) -> None:
        ticket = self._waiters.popleft()
        ticket.admitted = True
        ticket.wake()
