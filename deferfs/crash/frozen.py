"""Invariants of the image while the volume is frozen."""

from __future__ import annotations

from deferfs.crash.history import History
from deferfs.crash.stepping import SteppingDriver
from deferfs.crash.twin_error import TwinError
from deferfs.device import FlushRecord, RecordingDevice
from deferfs.store.io import run_job
from deferfs.store.recovery import read_superblock


class FrozenImage:
    """Checks the image of one driver. TwinError when a promise of the freeze is broken."""

    def __init__(self, driver: SteppingDriver, device: RecordingDevice, history: History) -> None:
        self._driver = driver
        self._device = device
        self._history = history
        self._writes_before = -1
        """Number of writes to the disk when the volume was frozen; -1 when it is not."""

    def begins(self) -> None:
        """The image must be clean and hold everything."""
        journal = self._driver.volume.store.journal
        if self._history.floors[-1][1] < self._history.last:
            raise TwinError(f"frozen, and state {self._history.last} is not durable")
        if not run_job(self._device, read_superblock(self._device.size)).clean:
            raise TwinError("frozen, and the image is not marked clean")
        if journal.used or journal.committing is not None or not journal.running.empty:
            raise TwinError("frozen, and not everything is written home")
        self._writes_before = self._writes()

    def ends(self) -> None:
        """Check that nothing was written while frozen."""
        if self._writes_before not in (-1, self._writes()):
            raise TwinError(f"{self._writes() - self._writes_before} writes reached the image while it was frozen")
        self._writes_before = -1

    def _writes(self) -> int:
        return sum(not isinstance(record, FlushRecord) for record in self._device.records)
