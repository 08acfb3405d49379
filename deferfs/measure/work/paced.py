"""Loads: one repeated operation in a process of its own, with every latency recorded.

A closed load begins an operation when the one before has ended. An open load has a fixed pace: operation k is due at
`start + k * interval`, and its latency counts from then, so that one long stall is not hidden behind a single sample
(coordinated omission): the operations that became due meanwhile had to wait, too. When only the scheduler woke the
process late, the filesystem is not to blame, and the schedule is shifted by that much.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

import msgspec

from deferfs.measure.scenario import Series
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.processes import StopFlag

Operation = Callable[[int], object]
"""Performs operation number k, from 0 on. Raises OSError."""


class Measured(msgspec.Struct, frozen=True):
    """The latencies recorded by one process, by name of its operations."""

    series: dict[str, Series]


class Load:
    """`count` operations (None: until it is stopped), `per_second` of them due each second (0: a closed load): the job
    of one worker process. `first` is called before the clock starts.
    """

    def __init__(
        self,
        name: str,
        operation: Operation,
        *,
        count: int | None = None,
        per_second: float = 0.0,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self._operation = operation
        self._count = count
        self._interval_ns = round(1e9 / per_second) if per_second else 0
        self._first = first

    def prepare(self) -> None:
        """Setup that must not be measured."""
        self._first()

    def measure(self, stop: StopFlag) -> Measured:
        """Carry out the operations; `stop` ends them early."""
        return Measured({self.name: self._open(stop) if self._interval_ns else self._closed(stop)})

    def _closed(self, stop: StopFlag) -> Series:
        operation, clock, latencies = self._operation, time.monotonic_ns, array("Q")
        number = failed = 0
        while not stop and number != self._count:
            start = clock()
            try:
                operation(number)
            except OSError:
                failed += 1
            else:
                latencies.append(clock() - start)
            number += 1
        return Series(fold(latencies), number if self._count is None else self._count, failed)

    def _open(self, stop: StopFlag) -> Series:
        operation, interval, clock, latencies = self._operation, self._interval_ns, time.monotonic_ns, array("Q")
        number = failed = 0
        due = clock()
        end = due - 1
        while not stop and number != self._count:
            early = due - clock()
            if early > 0:
                time.sleep(early / 1e9)
                if stop:
                    break
                due = clock()
            try:
                operation(number)
            except OSError:
                failed += 1
                end = clock()
            else:
                end = clock()
                latencies.append(end - due)
            number += 1
            due += interval
        if self._count is not None:
            return Series(fold(latencies), self._count, failed)
        missed = max(0, (end - due) // interval + 1)  # became due during the last operation
        return Series(fold(latencies), number + missed, failed)
