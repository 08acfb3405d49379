"""Space reclaim: what an allocation that finds no free blocks can still get, cheapest first:

1. freed blocks that are not reusable yet, because uncommitted or held back by a checkpoint;
2. speculative blocks past EOF, first those of the files that have not grown for the longest time;
3. what inodegc can free: only as many inodes as needed, best ratio of blocks to cost first;
4. deleted files whose FORGET or RELEASE the kernel has sent but the daemon has not read.

ENOSPC only when all four are exhausted. A FORGET is in the kernel's queue before unlink(2) returns, so `rm big &&
dd of=big` on a full filesystem always finds the space of the old file in 3 or 4.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.volume.waits import Cleaned, Listen, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


class SpaceReclaimer:
    """Frees space for operations blocked on NeedFreeSpace. `refused_total` counts ENOSPC."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self.refused_total = 0

    def make(self, blocks: int, *, reserve: bool) -> Task[None]:
        """Return when the operation should try again: blocks have become free since the call, even if other operations
        have taken them. FsError(ENOSPC) when nothing is pending and nothing more can be freed.

        `reserve` marks operations that free space themselves: they wait for commits only.
        """
        engine, space = self._engine, self._store.space
        seen = space.epoch
        while space.epoch == seen:
            if self._store.frozen or (engine.freezing.begun and not reserve):
                # inodegc is stopped and nothing may change; a freeze commits, which releases what was freed before
                yield from engine.freezing.thawed()
                return
            if space.pending_blocks:
                with engine.measure("space"):
                    yield from engine.durability.released()
                continue
            if not reserve:
                yield from self._free(blocks, seen)
            if not self._changed(seen):
                self.refused_total += 1
                raise FsError(errno.ENOSPC)

    def _changed(self, seen: int) -> bool:
        """Whether a retry is worth it: blocks became or will become free, or a freeze has begun."""
        store = self._store
        return store.space.epoch != seen or store.space.pending_blocks > 0 or self._engine.freezing.begun

    def _free(self, blocks: int, seen: int) -> Task[None]:
        """Free up to `blocks` blocks; stop early when others became free, i.e. the epoch is no longer `seen`."""
        engine, space = self._engine, self._store.space
        engine.checker.might_wait("space")
        with engine.measure("space"):
            yield from engine.eviction.trim_for_space(blocks)
            if not (space.pending_blocks or space.epoch != seen):
                yield from self._inactivate(blocks, seen)
            if not (space.pending_blocks or space.epoch != seen) and engine.volume.inodes.held_orphans:
                yield Listen()
                yield from self._inactivate(blocks, seen)

    def _inactivate(self, blocks: int, seen: int) -> Task[None]:
        """Let inodegc, and inactivations that run inline, free up to `blocks` blocks."""
        cleanup, gc, space = self._engine.cleanup, self._engine.volume.gc, self._store.space
        while cleanup.has_work and not cleanup.stopped and space.pending_blocks < blocks and space.epoch == seen:
            if not gc.queued and gc.delayed:
                gc.retry_now()
            if not gc.hasten_space(blocks - space.pending_blocks):
                cleanup.push()
            yield Cleaned(cleanup, barrier=False)
