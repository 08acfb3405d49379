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
    from deferfs.mount.runtime.runtime import Runtime

_READ_TURNS_MAX = 1000
"""Turns given to the readers of requests: each reads at least one, and one FORGET message carries thousands."""


class Room:
    """Makes room for operations that wait with nothing held."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.refused_total = 0

    async def make(self, blocks: int, *, reserve: bool) -> None:
        """Return when the operation should look again: blocks have become free since the call, whether or not others
        have taken them meanwhile. FsError(ENOSPC) when nothing is pending and nothing more is to be had.

        `reserve` marks operations that free space themselves: they wait for commits only.
        """
        runtime, space = self.runtime, self.runtime.store.space
        seen = space.epoch
        while space.epoch == seen:
            if runtime.store.frozen:
                # inodegc rests, nothing may be changed anyway, and a freeze makes free what was freed before it
                await runtime.freezer.wait_thawed()
                return
            if space.pending_blocks:
                with runtime.waits.measure("space"):
                    await runtime.background.release_freed()
                continue
            if not reserve:
                await self._free(blocks, seen)
            if not self._changed(seen):
                self.refused_total += 1
                raise FsError(errno.ENOSPC)

    def _changed(self, seen: int) -> bool:
        """Whether there is reason to look again: blocks became free, or will, or nothing may be changed now."""
        store = self.runtime.store
        return store.space.epoch != seen or store.space.pending_blocks > 0 or store.frozen

    async def _free(self, blocks: int, seen: int) -> None:
        """Have so many blocks freed, or as many as there are; leave off when others' became free (`seen` is the epoch
        to compare with)."""
        runtime, space = self.runtime, self.runtime.store.space
        runtime.checker.might_wait("space")
        with runtime.waits.measure("space"):
            await runtime.blockgc.free_blocks(blocks)
            for step in (self._inactivate, self._listen):
                if space.pending_blocks or space.epoch != seen:
                    return
                await step(blocks, seen)

    async def _inactivate(self, blocks: int, seen: int) -> None:
        """Let inodegc, and inactivations that run inline, free so many blocks."""
        workers, gc, space = self.runtime.workers, self.runtime.workers.gc, self.runtime.store.space
        while workers.has_work and not workers.stopped and space.pending_blocks < blocks and space.epoch == seen:
            if not gc.queued and gc.delayed:
                gc.retry_now()
            if not gc.hasten_space(blocks - space.pending_blocks):
                workers.push()
            await workers.progress()

    async def _listen(self, blocks: int, seen: int) -> None:
        """Read what the kernel has sent; it may be the last reference to a deleted file."""
        if not self.runtime.volume.inodes.held_orphans:
            return
        for _ in range(_READ_TURNS_MAX):
            if not self.runtime.workers.requests_wait() and not self.runtime.forgets.waiting:
                break
            await trio.lowlevel.checkpoint()
        await self._inactivate(blocks, seen)
