"""The task that issues barriers for file data (`volume/write_out.py`), and the wait of requests for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.mount.runtime.pulse import Pulse
from deferfs.volume.waits import DataFlushed

if TYPE_CHECKING:
    from deferfs.mount.runtime.driving import TaskDriver
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)


class DataWriter:
    """Writeout of one volume."""

    def __init__(self, engine: Engine, tasks: TaskDriver, instruments: Instruments) -> None:
        self._write_out = engine.write_out
        self._drive = tasks.drive
        self._activity = instruments.activity
        self._due, self._flushed = Pulse(), Pulse()
        self._write_out.on_due = self._due.set
        self._write_out.on_flushed = self._flushed.beat
        tasks.register({DataFlushed: self._wait_flushed})

    async def _wait_flushed(self, wait: DataFlushed) -> None:
        while not wait.over():
            self._due.set()
            await self._flushed.wait()

    async def run(self) -> None:
        """The background task."""
        self._activity.be("write-out")
        while True:
            await self._due.wait()
            self._due.clear()
            while self._write_out.due:
                try:
                    await self._drive(self._write_out.flush())
                except FsError as error:
                    log.error("%s; the filesystem is read-only from now on", error.detail)
            self._flushed.beat()
