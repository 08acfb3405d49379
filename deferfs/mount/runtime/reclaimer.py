"""The task that gives memory back before it is short. When it does, and how much, the engine decides
(`volume/background_reclaim.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.waits import EntriesDropped

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.volume.engine import Engine


class EntryCache(Protocol):
    """The kernel's cache of directory entries (`fuse.kernel_cache.KernelCache`)."""

    async def trim(self, bytes_wanted: int) -> int:
        """Have some of it dropped; the bytes that this will free in core."""


class Reclaimer:
    """Of one volume."""

    def __init__(self, engine: Engine, tasks: TaskDriver) -> None:
        self.kernel_cache: EntryCache | None = None
        """Asks the kernel to drop entries when the in-core inodes it holds exceed the budget."""
        self._reclaim = engine.reclaim
        self._eviction = engine.eviction
        self._drive = tasks.drive
        self._due = Pulse()
        engine.reclaim.on_due = self._due.beat
        tasks.register({EntriesDropped: self._drop_entries})

    @property
    def direct_reclaims_total(self) -> int:
        """Times that an operation ran the shrinkers itself."""
        return self._eviction.direct_reclaims_total

    async def shrink(self, wanted_bytes: int) -> int:
        """Run the shrinkers; bytes freed."""
        return await self._drive(self._eviction.shrink(wanted_bytes))

    async def _drop_entries(self, wait: EntriesDropped) -> int:
        return 0 if self.kernel_cache is None else await self.kernel_cache.trim(wait.bytes_wanted)

    async def run(self) -> None:
        """The task."""
        while True:
            while not self._reclaim.due:
                await self._due.wait()
            await self._drive(self._reclaim.run())
            await trio.lowlevel.checkpoint()
