"""The latency of a request: the model of a queue in front of a disk, given arrivals, returns completion times.

FIFO: `depth` slots, of which `servers` are served at a time. A flush is a barrier: it starts when all earlier requests
have ended, and no later one starts before it has ended, as libata treats the command FLUSH CACHE EXT, which cannot be
queued. (The loop driver sends nothing after a flush until it is answered, so a disk without that restriction would look
the same.)

All times are in ns of one monotonic clock; requests are given in order of arrival. The model covers latency, not
durability: nothing is lost.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right, insort
from heapq import heapreplace
from typing import Final, NamedTuple

from deferfs.measure.slow_disk.presets import Preset
from deferfs.measure.slow_disk.wire import Kind

MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_LOWEST: Final = -2.326
"""First percentile of the standard normal distribution: the jitter is cut off there, so that the shortest time can be
stated."""
_HIGHEST: Final = 3.09
"""Its 99.9th percentile: the jitter is cut off there, so that the longest time can be stated."""
_P99: Final = 2.326
"""Its 99th percentile."""


class Service(NamedTuple):
    """When a request gets a slot in the disk's queue, when the disk starts it, and when it ends."""

    admitted: int
    start: int
    end: int


class Stated(NamedTuple):
    """The preset's times for a request to an idle disk, in ms."""

    least: float
    p50: float
    p99: float


class Model:
    """A disk as `preset` describes it; `seed` seeds the jitter."""

    def __init__(self, preset: Preset, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._ends: list[int] = []  # of what has not ended yet, sorted
        self._latest_end = 0
        self.set_preset(preset)

    def set_preset(self, preset: Preset) -> None:
        """Change the disk. Requests that have arrived keep their times, and a flush waits for them; the cache is
        empty."""
        self.preset = preset
        self._free = [0] * preset.servers  # a heap: when each server has ended its last request
        self._barrier = 0
        self._next_start = 0
        self._link_free = 0
        self._owed = 0
        self._paid_until = 0
        self._position = -1
        self._write_position = -1

    def waiting(self, now: int) -> int:
        """Requests that have arrived and not ended, including those that wait for a slot."""
        return len(self._ends) - bisect_right(self._ends, now)

    def arrive(self, kind: Kind, offset: int, length: int, now: int) -> Service:
        """A request arrives."""
        del self._ends[: bisect_right(self._ends, now)]
        preset = self.preset
        admitted = max(now, self._ends[-preset.depth]) if len(self._ends) >= preset.depth else now
        self._pay(now)
        if kind == "flush":
            start = max(admitted, self._latest_end)
            end = start + self._latency(preset.flush) + self._owed
            self._owed = 0
            self._barrier = end
        else:
            start = max(admitted, self._free[0], self._barrier, self._next_start)
            end = self._end_of_transfer(kind, offset, length, start)
            heapreplace(self._free, end)
            if preset.requests_per_second:
                self._next_start = start + round(_SECOND / preset.requests_per_second)
        insort(self._ends, end)
        self._latest_end = max(self._latest_end, end)
        return Service(admitted, start, end)

    def _pay(self, now: int) -> None:
        """While idle, the disk has written its cache to the medium."""
        self._owed -= min(self._owed, max(0, now - max(self._latest_end, self._paid_until)))
        self._paid_until = now

    def _end_of_transfer(self, kind: Kind, offset: int, length: int, start: int) -> int:
        preset = self.preset
        transfer = round(length * 1000 / preset.megabytes_per_second) if preset.megabytes_per_second else 0
        if kind == "write" and preset.cache:
            return start + self._latency(preset.write) + self._owe(offset, length, transfer)
        median = preset.read if kind == "read" else preset.write
        latency = self._latency(median + (preset.seek if offset != self._position else 0.0))
        self._position = offset + length
        # one channel for all data: transfers are serialised, latencies overlap
        self._link_free = max(self._link_free, start) + transfer
        return self._link_free + latency

    def _owe(self, offset: int, length: int, transfer: int) -> int:
        """A write enters the cache, and the medium's time for it is added to the backlog. Returns the wait for
        space."""
        destage = self.preset.destage if offset != self._write_position else 0.0
        self._write_position = offset + length
        self._owed += round(destage * MILLISECOND) + transfer
        excess = max(0, self._owed - round(self.preset.cache * MILLISECOND))
        self._owed -= excess
        return excess

    def _latency(self, median: float) -> int:
        if not median:
            return 0
        deviation = min(max(self._random.gauss(0.0, 1.0), _LOWEST), _HIGHEST) if self.preset.jitter else 0.0
        return round(median * MILLISECOND * math.exp(self.preset.jitter * deviation))


def stated(preset: Preset, kind: Kind, length: int = 4096) -> Stated:
    """The times of a request of `length` bytes at a random place on an idle disk. A flush: right after one such write
    (`least`: when the disk has had the time to destage it)."""
    transfer = length / 1000 / preset.megabytes_per_second if preset.megabytes_per_second else 0.0
    cached = kind == "write" and preset.cache
    median = {"read": preset.read, "write": preset.write, "flush": preset.flush}[kind]
    median += 0.0 if kind == "flush" or cached else preset.seek
    least, p99 = (median * math.exp(preset.jitter * deviation) for deviation in (_LOWEST, _P99))
    if kind == "flush":
        owed = preset.destage + transfer if preset.cache else 0.0
        return Stated(least, median + owed, p99 + owed)
    fixed = 0.0 if cached else transfer
    return Stated(least + fixed, median + fixed, p99 + fixed)
