"""Where space comes from when an allocation finds none, cheapest first:

1. blocks that are free already but not committed, or kept back by a checkpoint;
2. speculative blocks past EOF of files nobody writes to just now;
3. what inodegc can free: only as many inodes as are needed, those first that cost least for what they give;
4. deleted files whose FORGET or RELEASE the kernel has sent and nobody has read yet.

ENOSPC only when none of these has anything left. A FORGET is in the kernel's queue before unlink(2) returns, so that
`rm big && dd of=big` on a full filesystem finds the space of the old file in 3 or 4, always.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import trio

from deferfs.errors import FsError

if TYPE_CHECKING:
    from deferfs.mount.runtime import Runtime

_READ_TURNS_MAX = 1000
"""Turns given to the readers of requests: each reads at least one, and one FORGET message carries thousands."""


class Room:
    """Makes room for operations that wait with nothing held."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.refused_total = 0

    async def make(self, blocks: int, *, reserve: bool) -> None:
        """Return when more is available than before (what there was did not suffice). FsError(ENOSPC) when there is
        nothing more to be had.

        `reserve` marks operations that free space themselves: they wait for commits only.
        """
        runtime = self.runtime
        if runtime.store.frozen:
            # inodegc rests, and nothing may be changed anyway
            await runtime.freezer.wait_thawed()
        space = runtime.store.space
        before = space.free_blocks
        if not space.pending_blocks and not reserve:
            runtime.checker.might_wait("space")
            with runtime.waits.measure("space"):
                _ = await self._trim(blocks) or await self._inactivate(blocks) or await self._listen(blocks)
        if not space.pending_blocks:
            if space.free_blocks <= before:
                self.refused_total += 1
                raise FsError(errno.ENOSPC)
            return
        with runtime.waits.measure("space"):
            await runtime.background.release_freed()

    async def _trim(self, blocks: int) -> bool:
        return await self.runtime.blockgc.free_blocks(blocks) and bool(self.runtime.store.space.pending_blocks)

    async def _inactivate(self, blocks: int) -> bool:
        """Let inodegc, and inactivations that run inline, free so many blocks."""
        workers, gc, space = self.runtime.workers, self.runtime.workers.gc, self.runtime.store.space
        while workers.has_work and not workers.stopped and space.pending_blocks < blocks:
            if not gc.queued and gc.delayed:
                gc.retry_now()
            if not gc.hasten_space(blocks - space.pending_blocks):
                workers.push()
            await workers.progress()
        return bool(space.pending_blocks)

    async def _listen(self, blocks: int) -> bool:
        """Read what the kernel has sent; it may be the last reference to a deleted file."""
        if not self.runtime.volume.inodes.held_orphans:
            return False
        for _ in range(_READ_TURNS_MAX):
            if not self.runtime.workers.requests_wait() and not self.runtime.forgets.waiting:
                break
            await trio.lowlevel.checkpoint()
        return await self._inactivate(blocks)
