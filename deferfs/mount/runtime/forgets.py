"""FORGET messages: one may carry 65,000 inodes, and must keep neither the reader nor the event loop.

**Invariants**
- Under `deferred` the handler never awaits: a small message is counted at once, a large one is kept and counted in
  slices by a task. Counting late is harmless: a FORGET only takes back what LOOKUPs have given, in any order.
- Under `inline` the handler waits until every inactivation that follows is done: that is what inline means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from deferfs.limits import FORGETS_AT_ONCE
from deferfs.mount.runtime.pulse import Pulse
from deferfs.reclaim.inode import InCoreInode

if TYPE_CHECKING:
    from deferfs.reclaim.context import ReclaimChecker
    from deferfs.volume.volume import Volume

Forgotten = Sequence[tuple[int, int]]
"""(inode number, lookups taken back)."""


class Forgets:
    """Counts what the kernel forgets, and hands what is left to the evict policy."""

    def __init__(
        self, volume: Volume, checker: ReclaimChecker, place: Callable[[list[InCoreInode]], Awaitable[None]]
    ) -> None:
        """`place` takes what is left (`Eviction.place`)."""
        self._volume = volume
        self._checker = checker
        self._place = place
        self.waiting = 0
        """Inodes of messages that are kept."""
        self._kept: deque[Forgotten] = deque()
        """Slices of at most FORGETS_AT_ONCE."""
        self._wake = Pulse()
        self._task_runs = False

    def start(self, nursery: trio.Nursery) -> None:
        """Start the task that counts large messages."""
        self._task_runs = True
        nursery.start_soon(self._run)

    def stop(self) -> None:
        """The mount is gone, and all lookups with it: what has not been counted yet does not matter any more."""
        self._task_runs = False
        self._kept.clear()
        self.waiting = 0

    async def forget(self, inodes: Forgotten) -> None:
        """Process one message. Does not await under `deferred`."""
        with self._checker.enter("forget"):
            if self._volume.policy.waits or not self._task_runs:
                for first in range(0, len(inodes), FORGETS_AT_ONCE):
                    due = self._count(inodes[first : first + FORGETS_AT_ONCE])
                    if due:
                        await self._place(due)
                    if first + FORGETS_AT_ONCE < len(inodes):
                        await trio.lowlevel.checkpoint()
                return
            if self._kept or len(inodes) > FORGETS_AT_ONCE:
                for first in range(0, len(inodes), FORGETS_AT_ONCE):
                    self._kept.append(inodes[first : first + FORGETS_AT_ONCE])
                self.waiting += len(inodes)
                self._wake.set()
                return
            due = self._count(inodes)
            if due:
                await self._place(due)

    def _count(self, inodes: Forgotten) -> list[InCoreInode]:
        forget = self._volume.inodes.forget
        return [inode for inode in [forget(ino, count) for ino, count in inodes] if inode is not None]

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._kept:
                await self._count_slice()
                await trio.lowlevel.checkpoint()

    async def _count_slice(self) -> None:
        piece = self._kept.popleft()
        self.waiting -= len(piece)
        with self._checker.enter("forget"):
            due = self._count(piece)
            if due:
                await self._place(due)
