"""The end of a mount: no FORGETs will come. Inactivate, write everything home, mark the image clean."""

from __future__ import annotations

import logging
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from deferfs.errors import FsError
from deferfs.limits import UNMOUNT_DRAIN_SECONDS

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


class Gate(Protocol):
    """The interface of `Freezer` used here."""

    def ended(self) -> AbstractAsyncContextManager[None]:
        """Inside, the volume is neither frozen nor thawed; afterwards it is read-only for good."""


class Closing:
    """Closes one volume. `drain_seconds`: time limit for cleanup; the rest stays in the orphan table."""

    def __init__(self, engine: Engine, drive: Drive, gate: Gate) -> None:
        self.drain_seconds: float = UNMOUNT_DRAIN_SECONDS
        self._engine = engine
        self._drive = drive
        self._gate = gate

    async def close(self) -> None:
        """Drop all references, inactivate for a bounded time, close the image."""
        if self._engine.store.read_only:
            return
        async with self._gate.ended():
            try:
                await self._drive(self._engine.freezing.unmount(self.drain_seconds))
            except FsError as error:
                log.error("image left with a log to replay: %s", error.detail)
