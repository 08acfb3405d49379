"""The task that frees blocks past EOF: of which files, and when, the engine decides (`volume/eviction.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.waits import TrimsDue

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.volume.engine import Engine


class BlockGc:
    """Trims files, one round at a time."""

    def __init__(self, engine: Engine, tasks: TaskDriver) -> None:
        self._eviction = engine.eviction
        self._volume = engine.volume
        self._drive = tasks.drive
        self._wake = Pulse()
        self._idle = Pulse()
        self._busy = False
        engine.eviction.on_trim = self._wake.beat
        tasks.register({TrimsDue: self._wait_due})

    @property
    def trimmed_total(self) -> int:
        """Files of which blocks past EOF were freed."""
        return self._eviction.trimmed_total

    @property
    def files(self) -> int:
        """Files with blocks past EOF."""
        table = self._volume.inodes.table
        return sum(
            1
            for ino, generation in self._volume.past_eof
            if (found := table.get(ino)) and found.generation == generation and found.preallocated
        )

    async def run(self) -> None:
        """The background task."""
        while self._eviction.trims:
            await self._drive(self._eviction.await_trims())
            await self.flush()
            await trio.lowlevel.checkpoint()

    async def _wait_due(self, wait: TrimsDue) -> None:
        with trio.move_on_after(wait.seconds_max):
            while not wait.over():
                await self._wake.wait()

    async def flush(self) -> None:
        """Trim the queued files, and wait until that is done."""
        while self._busy:
            await self._idle.wait()
        self._busy = True
        try:
            await self._drive(self._eviction.trim_queued())
        finally:
            self._busy = False
            self._idle.beat()
