"""FORGET messages, and the task that counts large ones. What is kept, and in which slices it is counted, the engine
decides (`volume/forgetting.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.forgetting import Forgotten

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import Drive
    from deferfs.volume.engine import Engine


class Forgets:
    """Of one volume."""

    def __init__(self, engine: Engine, drive: Drive) -> None:
        self._forgetting = engine.forgetting
        self._checker = engine.checker
        self._drive = drive
        self._wake = Pulse()
        engine.forgetting.on_kept = self._wake.set

    @property
    def waiting(self) -> int:
        """Inodes of messages that are kept."""
        return self._forgetting.waiting

    def start(self, nursery: trio.Nursery) -> None:
        """Start the task that counts large messages."""
        self._forgetting.keeps = True
        nursery.start_soon(self._run)

    async def forget(self, inodes: Forgotten) -> None:
        """Process one message. Does not await under `deferred`."""
        with self._checker.enter("forget"):
            task = self._forgetting.forget(inodes)
            if task is not None:
                await self._drive(task)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._drive(self._forgetting.count_kept())
