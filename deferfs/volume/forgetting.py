"""FORGET messages: one may carry 65,000 inodes, and must keep neither the reader nor the event loop.

**Invariants**
- Under `deferred` nothing waits: a small message is counted at once, a large one is kept, and counted in slices of
  `at_once` by a task of the driver (`count_kept`). What comes after a message that is kept is kept behind it.
- Counting late is harmless: a FORGET only takes back what LOOKUPs have given, in any order. Losing one is not.
- Under `inline` the message is over when every inactivation that follows is done: that is what inline means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from deferfs.limits import FORGETS_AT_ONCE
from deferfs.reclaim.inode import InCoreInode
from deferfs.volume.waits import Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

Forgotten = Sequence[tuple[int, int]]
"""(inode number, lookups taken back)."""


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class Forgetting:
    """Counts what the kernel forgets, and hands what is left to the evict policy. `on_kept`: a message was kept.

    `keeps`: a task runs that counts what is kept; else large messages are counted by the task that has brought them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volume = engine.volume
        self.at_once: int = FORGETS_AT_ONCE
        self.keeps = False
        self.on_kept: Callable[[], None] = _nothing
        self.inodes_total = 0
        """Inodes of all messages, counted or kept."""
        self.waiting = 0
        """Inodes of messages that are kept."""
        self._kept: deque[Forgotten] = deque()
        """Slices of at most `at_once`."""

    def stop(self) -> None:
        """The mount is gone, and all lookups with it: what has not been counted yet does not matter any more."""
        self.keeps = False
        self._kept.clear()
        self.waiting = 0

    def forget(self, inodes: Forgotten) -> Task[None] | None:
        """One message. What is left to wait for; under `deferred` nothing, but where no task counts what is kept."""
        at_once = self.at_once
        self.inodes_total += len(inodes)
        small = len(inodes) <= at_once
        if self.keeps and not self._volume.policy.waits and (self._kept or not small):
            for first in range(0, len(inodes), at_once):
                self._kept.append(inodes[first : first + at_once])
            self.waiting += len(inodes)
            self.on_kept()
            return None
        if not small:
            return self._by_slices(inodes)
        waiting = self._count(inodes)
        return self._engine.eviction.wait_for(waiting) if waiting else None

    def _by_slices(self, inodes: Forgotten) -> Task[None]:
        for first in range(0, len(inodes), self.at_once):
            if first:
                yield Reschedule()
            yield from self._engine.eviction.wait_for(self._count(inodes[first : first + self.at_once]))

    def count_kept(self) -> Task[None]:
        """Count what is kept, slice by slice, with a turn for others after each."""
        while self._kept:
            piece = self._kept.popleft()
            self.waiting -= len(piece)
            with self._engine.checker.enter("forget"):
                yield from self._engine.eviction.wait_for(self._count(piece))
            yield Reschedule()

    def _count(self, inodes: Forgotten) -> list[InCoreInode]:
        """Take the lookups back, and hand what is left to the policy; what the caller has to wait for."""
        forget = self._volume.inodes.forget
        due = [inode for inode in [forget(ino, count) for ino, count in inodes] if inode is not None]
        return self._engine.eviction.dispose(due) if due else due
