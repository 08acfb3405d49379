"""Speculative preallocation, taken back: blocks past EOF are freed when the last handle is closed, when a file has not
grown for a while, and when space is short.

**Invariant:** a trim frees only what lies past EOF when its plan runs; it may meet a file that is open, being written
to, or gone, and does no harm then.
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError
from deferfs.limits import PREALLOCATION_LIFETIME_SECONDS
from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume import files

if TYPE_CHECKING:
    from deferfs.mount.runtime.executor import RunReserved
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)

_LOOKS_PER_LIFETIME = 4
_POLL_SECONDS_MIN = 0.05


class BlockGc:
    """Trims in a task of its own. Durations in seconds."""

    def __init__(self, volume: Volume, run_reserved: RunReserved) -> None:
        self._volume = volume
        self._run_reserved = run_reserved
        self.lifetime_seconds = PREALLOCATION_LIFETIME_SECONDS
        self.trimmed_total = 0
        self._queue: dict[tuple[int, int], None] = {}
        """(inode, generation): the number may belong to another inode when its turn comes."""
        self._wake = Pulse()
        self._idle = Pulse()
        self._busy = False
        self._stopped = False

    @property
    def has_work(self) -> bool:
        """Whether files wait to be trimmed."""
        return bool(self._queue or self._busy)

    @property
    def files(self) -> int:
        """Files that have blocks past EOF now."""
        table = self._volume.inodes.table
        return sum(
            1
            for ino, generation in self._volume.past_eof
            if (found := table.get(ino)) and found.generation == generation and found.preallocated
        )

    def queue(self, ino: int, generation: int) -> None:
        """Trim a file in the background."""
        self._queue[ino, generation] = None
        self._wake.set()

    def set_lifetime(self, seconds: float) -> None:
        """Free the blocks past EOF of files that have not grown for so long; those that have not already, at once."""
        self.lifetime_seconds = seconds
        self._wake.set()

    async def run(self) -> None:
        """The task."""
        while not self._stopped:
            if not self._queue:
                self._wake.clear()
                with trio.move_on_after(max(_POLL_SECONDS_MIN, self.lifetime_seconds / _LOOKS_PER_LIFETIME)):
                    await self._wake.wait()
                self._queue_idle()
            await self.flush()
            await trio.lowlevel.checkpoint()

    def _queue_idle(self) -> None:
        """Queue the files that have not grown for their lifetime."""
        volume = self._volume
        before = volume.store.clock() - int(self.lifetime_seconds * 1e9)
        for file, grown_ns in volume.past_eof.items():
            if grown_ns > before:
                break
            self._queue[file] = None

    async def flush(self) -> None:
        """Trim what is queued, and wait for the end of it."""
        while self._busy:
            await self._idle.wait()
        self._busy = True
        try:
            while self._queue and not self._stopped:
                file = next(iter(self._queue))
                del self._queue[file]
                await self.trim(*file)
        finally:
            self._busy = False
            self._idle.beat()

    async def stop(self) -> None:
        """The mount ends: trim nothing more, and wait until nothing is being trimmed."""
        self._stopped = True
        while self._busy:
            await self._idle.wait()

    async def trim(self, ino: int, generation: int) -> None:
        """Free a file's blocks past EOF. What goes wrong is left to its inactivation."""
        volume = self._volume
        try:
            while not await self._run_reserved(lambda plan: files.trim(plan, volume, ino, generation)):
                if self._stopped:
                    return
                await trio.lowlevel.checkpoint()
            self.trimmed_total += 1
        except FsError as error:
            volume.past_eof.pop((ino, generation), None)
            if error.errno != errno.ESTALE:
                log.warning("trimming inode %d failed: %s", ino, error)

    async def free_blocks(self, blocks: int) -> None:
        """Space is short: trim files, those that have not grown for the longest time first, until `blocks` have come
        back."""
        space, past_eof = self._volume.store.space, self._volume.past_eof
        while past_eof and space.pending_blocks < blocks:
            file = next(iter(past_eof))
            del past_eof[file]
            await self.trim(*file)
