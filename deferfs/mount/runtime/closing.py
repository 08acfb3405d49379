"""The end of a mount: no FORGET will come. Inactivate, write everything home, mark the image clean."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import trio

from deferfs.errors import FsError
from deferfs.limits import UNMOUNT_DRAIN_SECONDS
from deferfs.mount.runtime.jobs import run_job
from deferfs.store.store import close_store, mark_errors

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.mount.runtime.committer import Committer
    from deferfs.volume.volume import Volume

log = logging.getLogger(__name__)


class Stoppable(Protocol):
    """A part that takes work no longer (`Forgets`)."""

    def stop(self) -> None:
        """At once."""


class Trimmer(Protocol):
    """`BlockGc`."""

    async def stop(self) -> None:
        """Trim nothing more; nothing is being trimmed when this returns."""


class Cleaner(Protocol):
    """`GcWorkers`."""

    async def flush(self) -> None:
        """Wait until nothing is left to do."""

    async def stop(self) -> None:
        """Leave off; nothing runs when this returns."""

    def resume(self) -> None:
        """Go on."""


class Gate(Protocol):
    """`Freezer`."""

    def ended(self) -> AbstractAsyncContextManager[None]:
        """Inside, it is thawed; afterwards read-only for good."""


class Closing:
    """Of one volume. `drain_seconds`: how long what waits to be cleaned up is worked on; the rest stays in the orphan
    table."""

    def __init__(
        self,
        device: Device,
        volume: Volume,
        committer: Committer,
        forgets: Stoppable,
        trimmer: Trimmer,
        cleaner: Cleaner,
        gate: Gate,
        damaged: Callable[[], object],
    ) -> None:
        """`damaged` tells whether damage was met, which the superblock is to say."""
        self.drain_seconds: float = UNMOUNT_DRAIN_SECONDS
        self._device = device
        self._volume = volume
        self._committer = committer
        self._forgets = forgets
        self._trimmer = trimmer
        self._cleaner = cleaner
        self._gate = gate
        self._damaged = damaged

    async def close(self) -> None:
        """Drop all references, inactivate for a bounded time, close the image."""
        volume = self._volume
        if volume.store.read_only:
            return
        async with self._gate.ended():
            self._cleaner.resume()
            self._forgets.stop()
            for inode in volume.inodes.drop_all():
                volume.gc.enqueue(inode)
            with trio.move_on_after(self.drain_seconds):
                await self._cleaner.flush()
            await self._cleaner.stop()
            await self._trimmer.stop()
            left = volume.gc.backlog
            if left:
                log.info("%d deleted files are left to the next mount", left)
            await self._close_image()

    async def _close_image(self) -> None:
        """Nothing changes it any more."""
        self._committer.stop()
        store = self._volume.store
        try:
            async with self._committer.quiet():
                if self._damaged():
                    await run_job(self._device, mark_errors(store))
                await run_job(self._device, close_store(store))
        except FsError as error:
            log.error("image left with a log to replay: %s", error.detail)
