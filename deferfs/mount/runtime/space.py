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
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.errors import FsError

if TYPE_CHECKING:
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.volume.volume import Volume

_READ_TURNS_MAX = 1000
"""Turns given to the readers of requests: each reads at least one, and one FORGET message carries thousands."""


class Releaser(Protocol):
    """What makes freed blocks usable again (`Committer`)."""

    async def release_freed(self) -> None:
        """Wait until some are. FsError(EIO) after an abort."""


class Trimmer(Protocol):
    """What frees speculative blocks (`BlockGc`)."""

    async def free_blocks(self, blocks: int) -> None:
        """Free so many, if there are."""


class Cleaner(Protocol):
    """What frees the blocks of deleted files (`GcWorkers`)."""

    @property
    def has_work(self) -> bool:
        """Whether any are left."""

    @property
    def stopped(self) -> bool:
        """Whether it rests."""

    def push(self) -> None:
        """Begin without delay."""

    async def progress(self) -> None:
        """Wait until some may have been freed."""


class Gate(Protocol):
    """What keeps changes away while the filesystem is frozen (`Freezer`)."""

    async def wait_thawed(self) -> None:
        """Return when changes are possible again."""


class SpaceReclaimer:
    """Frees disk space for operations that wait with nothing held. `refused_total` counts those it had none for."""

    def __init__(
        self,
        volume: Volume,
        instruments: Instruments,
        releaser: Releaser,
        trimmer: Trimmer,
        cleaner: Cleaner,
        gate: Gate,
        unread: Callable[[], bool],
    ) -> None:
        """`unread` tells whether FORGETs may have come that have not been counted."""
        self.refused_total = 0
        self._volume = volume
        self._store = volume.store
        self._checker, self._waits = instruments.checker, instruments.waits
        self._releaser = releaser
        self._trimmer = trimmer
        self._cleaner = cleaner
        self._gate = gate
        self._unread = unread

    async def make(self, blocks: int, *, reserve: bool) -> None:
        """Return when the operation should look again: blocks have become free since the call, whether or not others
        have taken them meanwhile. FsError(ENOSPC) when nothing is pending and nothing more is to be had.

        `reserve` marks operations that free space themselves: they wait for commits only.
        """
        space = self._store.space
        seen = space.epoch
        while space.epoch == seen:
            if self._store.frozen:
                # inodegc rests, nothing may be changed anyway, and a freeze makes free what was freed before it
                await self._gate.wait_thawed()
                return
            if space.pending_blocks:
                with self._waits.measure("space"):
                    await self._releaser.release_freed()
                continue
            if not reserve:
                await self._free(blocks, seen)
            if not self._changed(seen):
                self.refused_total += 1
                raise FsError(errno.ENOSPC)

    def _changed(self, seen: int) -> bool:
        """Whether there is reason to look again: blocks became free, or will, or nothing may be changed now."""
        store = self._store
        return store.space.epoch != seen or store.space.pending_blocks > 0 or store.frozen

    async def _free(self, blocks: int, seen: int) -> None:
        """Have so many blocks freed, or as many as there are; leave off when others' became free (`seen` is the epoch
        to compare with)."""
        space = self._store.space
        self._checker.might_wait("space")
        with self._waits.measure("space"):
            await self._trimmer.free_blocks(blocks)
            for step in (self._inactivate, self._listen):
                if space.pending_blocks or space.epoch != seen:
                    return
                await step(blocks, seen)

    async def _inactivate(self, blocks: int, seen: int) -> None:
        """Let inodegc, and inactivations that run inline, free so many blocks."""
        cleaner, gc, space = self._cleaner, self._volume.gc, self._store.space
        while cleaner.has_work and not cleaner.stopped and space.pending_blocks < blocks and space.epoch == seen:
            if not gc.queued and gc.delayed:
                gc.retry_now()
            if not gc.hasten_space(blocks - space.pending_blocks):
                cleaner.push()
            await cleaner.progress()

    async def _listen(self, blocks: int, seen: int) -> None:
        """Read what the kernel has sent; it may be the last reference to a deleted file."""
        if not self._volume.inodes.held_orphans:
            return
        for _ in range(_READ_TURNS_MAX):
            if not self._unread():
                break
            await trio.lowlevel.checkpoint()
        await self._inactivate(blocks, seen)
