"""Placing inodes without active references with the evict policy, for cleanup at once or by inodegc."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.reclaim.inode import ActiveReference
    from deferfs.volume.engine import Engine


class Eviction:
    """Eviction of one volume. Inodes that the policy does not wait for are placed without an await."""

    def __init__(self, engine: Engine, drive: Drive) -> None:
        self._eviction = engine.eviction
        self._checker = engine.checker
        self._drive = drive

    async def release(self, reference: ActiveReference) -> None:
        """RELEASE: the last handle of a deleted file, or of one with blocks past EOF, leaves work for the policy."""
        with self._checker.enter("release"):
            task = self._eviction.release(reference)
            if task is not None:
                await self._drive(task)
