"""Memory comes back: by the operation that lacks it (direct reclaim), and by a task that sees it coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.limits import PRESSURE_FRACTION, SHRINK_BATCH
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.shortage import memory_is_short, reclaim_goal
from deferfs.reclaim.lockdep import FS_RECLAIM

if TYPE_CHECKING:
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.volume.volume import Volume

_PIECE_BYTES = 1 << 18
"""What background reclaim asks for at a time."""


class EntryCache(Protocol):
    """The kernel's cache of directory entries (`fuse.kernel_cache.KernelCache`)."""

    async def trim(self) -> int:
        """Have some of it dropped; the bytes that this will free in core."""


class Evictor(Protocol):
    """Where the inodes go that a shrinker has found (`Eviction`)."""

    @property
    def waits(self) -> bool:
        """Whether their inactivation is waited for."""

    async def place(self, inodes: list[InCoreInode]) -> None:
        """Take them."""


class Debts(Protocol):
    """What inodes leave behind that leave core (`Payer`)."""

    def noted(self) -> None:
        """There may be more."""

    async def room(self) -> None:
        """Wait until there is room for more."""


class Writer(Protocol):
    """What makes dirty memory clean (`Committer`)."""

    def ask(self) -> None:
        """Write back soon."""


class Reclaimer:
    """Runs the shrinkers of one volume. `works`: whether the background task does; off, all reclaim is direct, as in a
    memory cgroup, which has no kswapd."""

    def __init__(
        self,
        volume: Volume,
        instruments: Instruments,
        writer: Writer,
        evictor: Evictor,
        debts: Debts,
        push: Callable[[], None],
        *,
        works: bool = True,
    ) -> None:
        """`push` has inodegc begin without delay."""
        self.works = works
        self.direct_reclaims_total = 0
        self.kernel_cache: EntryCache | None = None
        """Asks the kernel to drop entries when the in-core inodes it holds exceed the budget."""
        self._volume = volume
        self._memory = volume.store.memory
        self._checker = instruments.checker
        self._writer = writer
        self._evictor = evictor
        self._debts = debts
        self._push = push
        self._asked = Pulse()
        self._pressed_to = 0
        """Bytes that the kernel's memory pressure asks us to come down to; 0: there is none."""

    # --- direct reclaim ---
    async def direct_reclaim(self, wanted_bytes: int) -> int:
        """The operation that needs memory runs the shrinkers itself, and waits if the policy says so. Bytes freed."""
        self.direct_reclaims_total += 1
        self._checker.might_need("memory")
        with self._checker.enter("direct_reclaim"):
            return await self.shrink(wanted_bytes)

    async def wait_for_debts(self) -> None:
        """When inodes cannot leave core because they owe too much, wait until one can."""
        if self._volume.inodes.debts.full:
            await self._debts.room()

    async def shrink(self, wanted_bytes: int) -> int:
        """Run the shrinkers: inodes first (they may hold blocks dirty), then blocks. Bytes freed."""
        freed, due = self._volume.inodes.shrink(wanted_bytes, SHRINK_BATCH, defer=not self._evictor.waits)
        self._debts.noted()
        if freed < wanted_bytes:
            freed += self._volume.store.cache.shrink(wanted_bytes - freed)
        if due:
            await self._evictor.place(due)
        return freed

    # --- in the background ---
    def look(self) -> None:
        """Cheap: begin when memory is short."""
        if self.works and memory_is_short(self._memory):
            self._asked.set()

    def set_works(self, works: bool) -> None:
        """Switch the task on or off; on, it looks at once."""
        self.works = works
        if works:
            self._asked.set()

    def set_memory(self, limit_bytes: int) -> None:
        """Set the budget; one below what is in use is reached by the task, and needs no operation for it."""
        self._memory.set_limit(limit_bytes)
        self.look()

    def under_pressure(self) -> None:
        """The kernel is short of memory: give a part of ours back, and clean up without delay. With the task off the
        memory stays, until an operation needs it."""
        self._pressed_to = max(1, self._memory.used * (PRESSURE_FRACTION - 1) // PRESSURE_FRACTION)
        self._asked.set()
        self._push()

    async def run(self) -> None:
        """The task."""
        memory = self._memory
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self.works:
                goal = reclaim_goal(memory)
                if self._pressed_to:
                    goal = min(goal, self._pressed_to)
                over = memory.used - goal
                if over <= 0:
                    break
                freed = await self._reclaim_piece(min(over, _PIECE_BYTES))
                if not freed and self.kernel_cache is not None:
                    freed = await self.kernel_cache.trim()
                await trio.lowlevel.checkpoint()
                if not freed:
                    self._writer.ask()  # all that is left is dirty or in use
                    break
            self._pressed_to = 0

    async def _reclaim_piece(self, wanted_bytes: int) -> int:
        """As direct reclaim, but it may wait: no operation waits for it but for want of memory. Bytes freed."""
        with self._checker.holding("background reclaim", FS_RECLAIM):
            return await self.shrink(wanted_bytes)
