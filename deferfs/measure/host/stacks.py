"""Where a task waits in the kernel: `/proc/PID/stack`, sampled by a separate process.

The sampled process publishes its waits in `SharedSamples`; short waits are not sampled.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.scenario import Stall
from deferfs.measure.work.processes import StopFlag, Worker
from deferfs.measure.work.shared_samples import SharedSamples

INTERVAL_SECONDS: Final = 0.005
LONG_NS: Final = 5_000_000
"""A wait is sampled once it has lasted so long."""
ANSWER_SECONDS_MAX: Final = 30.0
STACKS_SENT_MAX: Final = 1000
"""In a pass with very many long waits, only the longest ones matter."""
_FRAME: Final = re.compile(r"^\[<[0-9a-fx]+>\] (?P<function>[\w.]+)\+0x")


class Sighting(msgspec.Struct, frozen=True):
    """How often (`samples`) the operation `index` was found in `stack`, innermost first."""

    index: int
    stack: list[str]
    samples: int


class Sightings(msgspec.Struct, frozen=True):
    """The samples; `longest_ns`: for each operation sampled, how long it had lasted at the last sample."""

    seen: list[Sighting]
    longest_ns: dict[int, int]


def parse_stack(text: str) -> list[str]:
    """Function names in the text of `/proc/PID/stack`, innermost first; empty for a running task."""
    return [found["function"] for line in text.splitlines() if (found := _FRAME.match(line.strip()))]


class _Sampling:
    """The sampler's job."""

    name = "stack"

    def __init__(self, pid: int, samples: SharedSamples, long_ns: int) -> None:
        self._path = Path(f"/proc/{pid}/stack")
        self._samples = samples
        self._long_ns = long_ns

    def prepare(self) -> None:
        """No-op."""

    def measure(self, stop: StopFlag) -> Sightings:
        """Sample until told to stop."""
        seen: Counter[tuple[int, tuple[str, ...]]] = Counter()
        longest: dict[int, int] = {}
        while not stop:
            index, waited = self._samples.count, self._samples.waiting()
            if waited >= self._long_ns and (stack := self._read()):
                seen[index, tuple(stack)] += 1
                longest[index] = waited
            time.sleep(INTERVAL_SECONDS)
        kept = sorted(longest, key=lambda index: longest[index])[-STACKS_SENT_MAX:]
        return Sightings(
            [Sighting(index, list(stack), count) for (index, stack), count in seen.items() if index in set(kept)],
            {index: longest[index] for index in kept},
        )

    def _read(self) -> list[str]:
        try:
            return parse_stack(self._path.read_text())
        except OSError:
            return []  # the process has ended, or its stack cannot be read


class StackSampler:
    """Samples the kernel stacks of process `pid` for the length of a `with` block; `stalls` returns them afterwards.

    Inside the block the sampler's own `pid` is known.
    """

    def __init__(self, pid: int, samples: SharedSamples, long_ns: int = LONG_NS) -> None:
        self._job = _Sampling(pid, samples, long_ns)
        self._samples = samples
        self._stop = StopFlag()
        self._sightings = Sightings([], {})

    def __enter__(self) -> StackSampler:
        self._worker = Worker(self._job, self._stop)
        try:
            self._worker.join()
            self._worker.wait_ready()
            self._worker.go()
        except BaseException:
            self._worker.close()
            raise
        self.pid = self._worker.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.raise_()
        try:
            with contextlib.suppress(DeferfsError):  # stacks are optional: the pass is valid without them
                self._sightings = msgspec.convert(self._worker.result(ANSWER_SECONDS_MAX), Sightings, strict=False)
        finally:
            self._worker.close()

    def stalls(self, series: str, durations: Iterable[int], keep: int = 1) -> list[Stall]:
        """The `keep` longest of the `durations` (ns, in order of the operations), longest first, each with its most
        frequent stack.
        """
        longest = sorted(enumerate(durations), key=lambda item: item[1], reverse=True)[:keep]
        return [self._stall(series, index, duration) for index, duration in longest]

    def _stall(self, series: str, index: int, duration: int) -> Stall:
        seen = [sighting for sighting in self._sightings.seen if sighting.index == index]
        most = max(seen, key=lambda sighting: sighting.samples, default=Sighting(index, [], 0))
        return Stall(series, duration, most.stack, sum(sighting.samples for sighting in seen))
