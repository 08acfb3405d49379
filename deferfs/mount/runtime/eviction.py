"""Where inodes go that nothing uses any more: to the evict policy, which has them cleaned up at once or by inodegc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from deferfs.mount.runtime.grants import CircularWaitError

if TYPE_CHECKING:
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.reclaim.inode import ActiveReference, InCoreInode
    from deferfs.volume.volume import Volume


class Cleaner(Protocol):
    """What runs inactivations (`Cleanup`)."""

    @property
    def stopped(self) -> bool:
        """Whether none may run now."""

    async def inactivate_or_queue(self, inode: InCoreInode) -> None:
        """Run one to its end. CircularWaitError when it would wait for its caller."""


class Trimmer(Protocol):
    """What frees blocks past EOF (`BlockGc`)."""

    def queue(self, ino: int, generation: int) -> None:
        """In the background."""

    async def trim(self, ino: int, generation: int) -> None:
        """Now."""


class Eviction:
    """Of one volume."""

    def __init__(self, volume: Volume, instruments: Instruments, cleaner: Cleaner, trimmer: Trimmer) -> None:
        self._volume = volume
        self._checker, self._waits = instruments.checker, instruments.waits
        self._cleaner = cleaner
        self._trimmer = trimmer

    @property
    def waits(self) -> bool:
        """Whether the source of an eviction waits for the inactivation. While inodegc is stopped, none does."""
        return self._volume.policy.waits and not self._cleaner.stopped

    async def place(self, inodes: list[InCoreInode]) -> None:
        """Hand inodes to the evict policy, and wait for those it gives back (inline). While inodegc is stopped, all
        of them wait in its queues."""
        volume = self._volume
        if self._cleaner.stopped:
            for inode in inodes:
                volume.gc.enqueue(inode)
            return
        for inode in volume.policy.place(inodes):
            self._checker.might_wait("gc")
            with self._waits.measure("gc"):
                try:
                    await self._cleaner.inactivate_or_queue(inode)
                except CircularWaitError:
                    if volume.inodes.interrupt(inode):
                        volume.gc.enqueue(inode)

    async def release(self, reference: ActiveReference) -> None:
        """RELEASE: the last handle of a deleted file, or of one with blocks past EOF, leaves work for the policy."""
        with self._checker.enter("release"):
            inode = reference.inode
            due = reference.release()
            if due is not None:
                await self.place([due])
            elif inode.preallocated and not inode.active_tokens and not inode.orphan:
                if not self.waits:
                    self._trimmer.queue(inode.ino, inode.generation)
                else:
                    self._checker.might_wait("gc")
                    with self._waits.measure("gc"):
                        await self._trimmer.trim(inode.ino, inode.generation)
