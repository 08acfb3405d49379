"""Latencies in shared memory: they survive the process that measured them, including the wait in which it died."""

from __future__ import annotations

import mmap
import time
from typing import Final

_COUNT: Final = 0
_SINCE: Final = 1
_HEAD: Final = 2
_WORD_BYTES: Final = 8


class SharedSamples:
    """Up to `capacity` latencies in ns, written by one process forked after construction, read by others.

    The writer records the start of each operation (`begin`), and afterwards its latency (`end`). An operation begun and
    not ended is the wait that the writer is in, or died in.
    """

    def __init__(self, capacity: int) -> None:
        self._words = memoryview(mmap.mmap(-1, (_HEAD + capacity) * _WORD_BYTES)).cast("q")

    def touch(self) -> None:
        """Fault in every page, so that the writer is not charged for one during an operation."""
        for at in range(_HEAD, len(self._words), mmap.PAGESIZE // _WORD_BYTES):
            self._words[at] = 0
        self._words[len(self._words) - 1] = 0

    def begin(self, now: int) -> None:
        """An operation starts at `now`, of `time.monotonic_ns`."""
        self._words[_SINCE] = now

    def end(self, latency: int) -> None:
        """The operation took `latency` ns, possibly counted from another moment than its start."""
        count = self._words[_COUNT]
        self._words[_HEAD + count] = latency
        self._words[_SINCE] = 0
        self._words[_COUNT] = count + 1

    @property
    def count(self) -> int:
        """Number of completed operations."""
        return self._words[_COUNT]

    def ended(self) -> list[int]:
        """The latencies so far, in order."""
        return self._words[_HEAD : _HEAD + self.count].tolist()

    def waiting(self, now: int | None = None) -> int:
        """Duration so far of the operation in progress, in ns; 0 when there is none."""
        since = self._words[_SINCE]
        return (time.monotonic_ns() if now is None else now) - since if since else 0
