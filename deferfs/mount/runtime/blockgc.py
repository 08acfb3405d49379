"""Reclaim of speculative preallocation: blocks past EOF are freed when the last handle is closed, when a file has not
grown for a while, and when space is short.

**Invariant:** a trim frees only what lies past EOF when its plan runs, so it is harmless for a file that is open, being
written to, or gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.limits import PREALLOCATION_LIFETIME_SECONDS
from deferfs.mount.runtime.pulse import Pulse

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.volume.engine import Engine

_LOOKS_PER_LIFETIME = 4
"""Scans for idle files per lifetime: blocks are kept for at most 1 1/4 lifetimes."""
_POLL_SECONDS_MIN = 0.05
"""Shortest interval between scans."""


class BlockGc:
    """Trims files in a task of its own. Durations in seconds."""

    def __init__(self, engine: Engine, drive: Drive) -> None:
        self._eviction, self._cleanup = engine.eviction, engine.cleanup
        self._volume = engine.volume
        self._drive = drive
        self.lifetime_seconds = PREALLOCATION_LIFETIME_SECONDS
        self._wake = Pulse()
        self._idle = Pulse()
        self._busy = False
        engine.eviction.on_trim = self._wake.set

    @property
    def trimmed_total(self) -> int:
        """Files of which blocks past EOF were freed."""
        return self._eviction.trimmed_total

    @property
    def has_work(self) -> bool:
        """Whether files wait to be trimmed."""
        return bool(self._eviction.to_trim or self._busy)

    @property
    def files(self) -> int:
        """Files with blocks past EOF."""
        table = self._volume.inodes.table
        return sum(
            1
            for ino, generation in self._volume.past_eof
            if (found := table.get(ino)) and found.generation == generation and found.preallocated
        )

    def set_lifetime(self, seconds: float) -> None:
        """Free the blocks past EOF of files that have not grown for `seconds`; of those overdue already, at once."""
        self.lifetime_seconds = seconds
        self._wake.set()

    async def run(self) -> None:
        """The background task."""
        while self._eviction.trims:
            if not self._eviction.to_trim or self._cleanup.stopped:
                self._wake.clear()
                with trio.move_on_after(max(_POLL_SECONDS_MIN, self.lifetime_seconds / _LOOKS_PER_LIFETIME)):
                    await self._wake.wait()
                self._eviction.queue_idle(int(self.lifetime_seconds * 1e9))
            await self.flush()
            await trio.lowlevel.checkpoint()

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
