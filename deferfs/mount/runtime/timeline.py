"""A timeline of the daemon's work, as JSON for ui.perfetto.dev and chrome://tracing.

The format is the JSON array of the Trace Event Format, which may lack its closing bracket, so the file is valid after a
crash up to the last write. Events are encoded at once into a buffer, which a task writes out in a thread several times
a second; events that do not fit into the buffer meanwhile are dropped and counted.

**Invariants**
- The buffer never exceeds BUFFER_BYTES_MAX, the file never TRACE_BYTES_MAX.
- The file consists of whole events at any time.
- Slices of one lane nest: a request takes the lowest free lane of its family, and its waits are drawn into that.
"""

from __future__ import annotations

import heapq
import logging
import os
import time
from collections.abc import Callable
from typing import Final

import msgspec
import trio

from deferfs.contract import statistics
from deferfs.errors import UsageError
from deferfs.limits import MIB
from deferfs.mount.runtime.pulse import Pulse

log = logging.getLogger(__name__)

BUFFER_BYTES_MAX: Final = 4 * MIB
"""About 30,000 events between two writes."""
TRACE_BYTES_MAX: Final = 1024 * MIB
"""More than a browser can open; a trace left running must not fill a disk."""
WRITE_SECONDS: Final = 0.25
"""Interval between writes."""
_FAMILIES: Final = ("forget", "queue", "inodegc", "commit", "checkpoint", "reclaimer", "foreground")
"""Groups of lanes, in the order in which they are shown."""
_LANES_MAX: Final = 1000
"""Lane numbers reserved for each family."""

Lane = int
"""The `tid` of the format."""
Sampler = Callable[[], dict[str, dict[str, float]]]
"""Counters to draw: {name: {series: value}}."""


class _Event(msgspec.Struct, omit_defaults=True):
    """One event of the format; times in us, of CLOCK_MONOTONIC, as the kernel's tracer has it with its clock `mono`."""

    name: str
    ph: str
    pid: int
    tid: int
    ts: float
    dur: float | None = None
    s: str | None = None
    cat: str | None = None
    id: str | None = None
    args: dict[str, object] | None = None


def create_no_file(path: str) -> int:
    """Default for a runtime without a place for files."""
    raise UsageError(f"{path}: no timeline can be recorded here")


class Timeline:
    """Records while `active`. `sample` is called for counters each time the buffer is written."""

    def __init__(self, sample: Sampler, create_file: Callable[[str], int]) -> None:
        """`create_file(path)` returns a descriptor of a new file, or raises a UsageError."""
        self.active = False
        self.path = ""
        self.events_total = 0
        self.dropped_total = 0
        self.written_bytes = 0
        self.own_device = -1
        """Device number of the mount served: a trace on it would record its own writing."""
        self._sample = sample
        self._create_file = create_file
        self._encode = msgspec.json.Encoder().encode
        self._buffer = bytearray()
        self._fd = -1
        self._free: dict[str, list[int]] = {}
        self._named: set[Lane] = set()
        self._fixed: dict[str, Lane] = {}
        self._started_ns = 0
        self._turn = trio.Lock()
        self._wake = Pulse()

    # --- control ---
    async def start(self, path: str) -> None:
        """Record into a new file. UsageError when that is not possible."""
        async with self._turn:
            if self.active:
                raise UsageError(f"a timeline is being recorded already, to {self.path}")
            if not os.path.isabs(path):
                raise UsageError(f"the file of a timeline must be an absolute path, not {path!r}")
            self._fd = await trio.to_thread.run_sync(self._open, path)
            self.path = path
            self.events_total = self.dropped_total = self.written_bytes = 0
            self._free, self._named, self._fixed = {}, set(), {}
            self._started_ns = time.perf_counter_ns()
            self._buffer += b"["
            self.active = True
            self._add(_Event("process_name", "M", os.getpid(), 0, 0, args={"name": "deferfs"}))
            self._wake.set()

    async def stop(self) -> None:
        """Write the rest of the buffer, and end the file. No effect when none is being recorded."""
        async with self._turn:
            if self.active:
                self._take_samples()
                await self._end()

    async def run(self) -> None:
        """The task that writes."""
        while True:
            await self._wake.wait()
            await trio.sleep(WRITE_SECONDS)
            async with self._turn:
                if not self.active:
                    self._wake.clear()
                    continue
                self._take_samples()
                try:
                    await self._write()
                except OSError as error:
                    log.error("the timeline %s ends: %s", self.path, error.strerror)
                    await self._end(quietly=True)
                else:
                    if self.written_bytes > TRACE_BYTES_MAX - BUFFER_BYTES_MAX:
                        log.warning("the timeline %s ends: it is full", self.path)
                        await self._end()

    def snapshot(self) -> statistics.Timeline:
        """For the statistics; `file` is empty when none is being recorded."""
        return statistics.Timeline(
            file=self.path if self.active else "",
            events_total=self.events_total,
            dropped_total=self.dropped_total,
            written_bytes=self.written_bytes,
        )

    # --- lanes ---
    def take_lane(self, family: str) -> Lane:
        """Take the lowest free lane of the family."""
        free = self._free.setdefault(family, [])
        base = _base(family)
        if not free:
            used = sum(1 for lane in self._named if base <= lane < base + _LANES_MAX)
            lane = base + min(used, _LANES_MAX - 1)
            self._name(lane, f"{family} {lane - base}")
            return lane
        return heapq.heappop(free)

    def give_lane(self, lane: Lane) -> None:
        """Return a lane."""
        heapq.heappush(self._free.setdefault(_FAMILIES[lane // _LANES_MAX - 1], []), lane)

    def fixed_lane(self, name: str) -> Lane:
        """The lane of a background task."""
        lane = self._fixed.get(name)
        if lane is None:
            family = name.partition(" ")[0]
            lane = _base(family) + _LANES_MAX // 2 + len(self._fixed)
            self._fixed[name] = lane
            self._name(lane, name)
        return lane

    def _name(self, lane: Lane, name: str) -> None:
        if lane not in self._named:
            self._named.add(lane)
            pid = os.getpid()
            self._add(_Event("thread_name", "M", pid, lane, 0, args={"name": name}))
            self._add(_Event("thread_sort_index", "M", pid, lane, 0, args={"sort_index": lane}))

    # --- events; times of perf_counter_ns ---
    def slice(self, lane: Lane, name: str, start_ns: int, end_ns: int, **arguments: object) -> None:
        """An event with a duration; it may have begun before the recording."""
        duration = max(0, end_ns - start_ns)
        self._add(_Event(name, "X", os.getpid(), lane, start_ns / 1e3, duration / 1e3, args=arguments or None))

    def instant(self, lane: Lane, name: str) -> None:
        """An event of this moment."""
        self._add(_Event(name, "i", os.getpid(), lane, time.perf_counter_ns() / 1e3, s="t"))

    def span_across(self, name: str, number: int, start_ns: int, end_ns: int) -> None:
        """An event with a duration that need not nest with others of its kind. It is cut at the start of the recording,
        as it may have begun hours before."""
        pid, lane = os.getpid(), self.fixed_lane("queue")
        start = max(start_ns, self._started_ns)
        key = f"{number}.{self.events_total}"
        self._add(_Event(name, "b", pid, lane, start / 1e3, cat="queue", id=key, args={"inode": number}))
        self._add(_Event(name, "e", pid, lane, max(start, end_ns) / 1e3, cat="queue", id=key))

    def _take_samples(self) -> None:
        now, pid = time.perf_counter_ns() / 1e3, os.getpid()
        for name, values in self._sample().items():
            self._add(_Event(name, "C", pid, 0, now, args=dict(values)))

    def _add(self, event: _Event) -> None:
        if not self.active:
            return
        encoded = self._encode(event)
        if len(self._buffer) + len(encoded) + 2 > BUFFER_BYTES_MAX:
            self.dropped_total += 1
            return
        self._buffer += b",\n" if self.events_total else b"\n"
        self._buffer += encoded
        self.events_total += 1

    # --- the file ---
    def _open(self, path: str) -> int:
        """Open the file in a thread: a file on the mount itself must not block the loop that serves it."""
        try:
            device = os.stat(os.path.dirname(path)).st_dev
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}; name another file") from error
        if device == self.own_device:
            raise UsageError(f"{path}: lies on the mount itself; name a file outside of it")
        return self._create_file(path)

    async def _write(self) -> None:
        """Write whole events, even when the task is cancelled."""
        data, self._buffer = self._buffer, bytearray()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_write_all, self._fd, data)
        self.written_bytes += len(data)

    async def _end(self, *, quietly: bool = False) -> None:
        self.active = False
        self._buffer += b"\n]\n"
        try:
            if not quietly:
                await self._write()
        except OSError as error:
            log.error("the timeline %s is incomplete: %s", self.path, error.strerror)
        finally:
            self._buffer = bytearray()
            os.close(self._fd)
            self._fd = -1


def _base(family: str) -> Lane:
    """The first lane of a family; unknown families come last. Lane 0 would be the kernel's idle task."""
    return (_FAMILIES.index(family) + 1 if family in _FAMILIES else len(_FAMILIES) + 1) * _LANES_MAX


def _write_all(fd: int, data: bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
