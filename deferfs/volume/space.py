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

from deferfs.errors import FsError
from deferfs.volume.waits import Cleaned, Listen, Task, Thawed

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


class SpaceReclaimer:
    """Frees space for operations that wait with nothing held. `refused_total` counts ENOSPC."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store
        self.refused_total = 0

    def make(self, blocks: int, *, reserve: bool) -> Task[None]:
        """Return when the operation should look again: blocks have become free since the call, whether or not others
        have taken them meanwhile. FsError(ENOSPC) when nothing is pending and nothing more is to be had.

        `reserve` marks operations that free space themselves: they wait for commits only.
        """
        engine, space = self._engine, self._store.space
        seen = space.epoch
        while space.epoch == seen:
            if self._store.frozen or (engine.freezing.begun and not reserve):
                # inodegc rests, nothing may be changed anyway, and a freeze makes free what was freed before it
                yield Thawed(engine.freezing)
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
        """Whether there is reason to look again: blocks became free, or will, or nothing may be changed now."""
        store = self._store
        return store.space.epoch != seen or store.space.pending_blocks > 0 or self._engine.freezing.begun

    def _free(self, blocks: int, seen: int) -> Task[None]:
        """Have so many blocks freed, or as many as there are; leave off when others' became free (`seen` is the epoch
        to compare with)."""
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
        """Let inodegc, and inactivations that run inline, free so many blocks."""
        cleanup, gc, space = self._engine.cleanup, self._engine.volume.gc, self._store.space
        while cleanup.has_work and not cleanup.stopped and space.pending_blocks < blocks and space.epoch == seen:
            if not gc.queued and gc.delayed:
                gc.retry_now()
            if not gc.hasten_space(blocks - space.pending_blocks):
                cleanup.push()
            yield Cleaned(cleanup, barrier=False)
