"""Memory comes back before it is short: a task runs the shrinkers. An operation that lacks memory runs them itself
(`volume/eviction.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.limits import PRESSURE_FRACTION
from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.shortage import memory_is_short, reclaim_goal

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.volume.engine import Engine

_PIECE_BYTES = 1 << 18
"""What background reclaim asks for at a time."""


class EntryCache(Protocol):
    """The kernel's cache of directory entries (`fuse.kernel_cache.KernelCache`)."""

    async def trim(self) -> int:
        """Have some of it dropped; the bytes that this will free in core."""


class Writer(Protocol):
    """What makes dirty memory clean (`Committer`)."""

    def ask(self) -> None:
        """Write back soon."""


class Reclaimer:
    """Of one volume. `works`: whether the task does; off, all reclaim is direct, as in a memory cgroup, which has no
    kswapd."""

    def __init__(
        self, engine: Engine, drive: Drive, writer: Writer, push: Callable[[], None], *, works: bool = True
    ) -> None:
        """`push` has inodegc begin without delay."""
        self.works = works
        self.kernel_cache: EntryCache | None = None
        """Asks the kernel to drop entries when the in-core inodes it holds exceed the budget."""
        self._eviction = engine.eviction
        self._memory = engine.store.memory
        self._drive = drive
        self._writer = writer
        self._push = push
        self._asked = Pulse()
        self._pressed_to = 0
        """Bytes that the kernel's memory pressure asks us to come down to; 0: there is none."""

    @property
    def direct_reclaims_total(self) -> int:
        """Times that an operation ran the shrinkers itself."""
        return self._eviction.direct_reclaims_total

    async def shrink(self, wanted_bytes: int) -> int:
        """Run the shrinkers; bytes freed."""
        return await self._drive(self._eviction.shrink(wanted_bytes))

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
                freed = await self._drive(self._eviction.background_reclaim(min(over, _PIECE_BYTES)))
                if not freed and self.kernel_cache is not None:
                    freed = await self.kernel_cache.trim()
                await trio.lowlevel.checkpoint()
                if not freed:
                    self._writer.ask()  # all that is left is dirty or in use
                    break
            self._pressed_to = 0
