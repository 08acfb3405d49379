"""A process that exits: it held the last references to deleted files of many extents."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence

from deferfs.measure.scenario import Series
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.paced import Measured
from deferfs.measure.work.processes import StopFlag


class Exit:
    """The job of one worker process. It opens and deletes the files at `paths` before the clock starts, and closes
    them at once when it does, as exit(2) would; the series `exit` has how long each close(2) took.
    """

    name = "exit"

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._open: list[int] = []

    def prepare(self) -> None:
        """Take the last references. Raises OSError."""
        self._open = [os.open(path, os.O_RDONLY) for path in self._paths]
        for path in self._paths:
            os.unlink(path)

    def measure(self, stop: StopFlag) -> Measured:
        """Close the files, which drops the last references."""
        clock, latencies = time.monotonic_ns, array("Q")
        for descriptor in self._open:
            start = clock()
            os.close(descriptor)
            latencies.append(clock() - start)
        return Measured({self.name: Series(fold(latencies), len(self._open))})
