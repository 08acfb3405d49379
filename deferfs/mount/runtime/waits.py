"""Where foreground requests spend their time: counts, durations and histograms, by request and by cause of waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from deferfs.contract import statistics

if TYPE_CHECKING:
    from deferfs.mount.runtime.activity import Activity

WAIT_KINDS = ("log", "memory", "io", "gc", "space", "commit", "throttle", "thaw")
"""Causes of waits, in the order of the statistics."""

_BUCKETS: Final = 44
"""Powers of two of a ns; the last bucket is for all above two hours."""


class Timing:
    """Totals of one kind of event in ns, and a histogram: bucket k counts durations from 2^(k-1) up to 2^k."""

    __slots__ = ("_buckets", "count", "max_ns", "total_ns")

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.max_ns = 0
        self._buckets = [0] * _BUCKETS

    def add(self, elapsed_ns: int) -> None:
        self.count += 1
        self.total_ns += elapsed_ns
        if elapsed_ns > self.max_ns:
            self.max_ns = elapsed_ns
        self._buckets[min(elapsed_ns.bit_length(), _BUCKETS - 1)] += 1

    def totals(self) -> statistics.Totals:
        """Count, sum and maximum."""
        return statistics.Totals(count=self.count, total_ns=self.total_ns, max_ns=self.max_ns)

    def snapshot(self) -> statistics.Timing:
        """The totals, and the non-empty buckets by their upper bounds."""
        buckets = {1 << k: n for k, n in enumerate(self._buckets) if n}
        return statistics.Timing(count=self.count, total_ns=self.total_ns, max_ns=self.max_ns, log2_ns=buckets)


class Timings:
    """Timings by name; unknown names start at zero."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.by_name: dict[str, Timing] = {name: Timing() for name in names}
        self.events = 0
        """The total over all names."""

    def add(self, name: str, elapsed_ns: int) -> None:
        timing = self.by_name.get(name)
        if timing is None:
            timing = self.by_name[name] = Timing()
        timing.add(elapsed_ns)
        self.events += 1

    def snapshot(self) -> dict[str, statistics.Timing]:
        return {name: timing.snapshot() for name, timing in self.by_name.items()}


class Waits(Timings):
    """Waits by cause, and by the request or task that waited."""

    def __init__(self, activity: Activity) -> None:
        super().__init__(WAIT_KINDS)
        self._activity = activity
        self.by_actor: dict[tuple[str, str], Timing] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time the body, as a wait of the running task for `name`."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            end = time.perf_counter_ns()
            actor = self._activity.slice(f"wait for {name}", start, end)
            self.add(name, end - start)
            key = (actor, name)
            timing = self.by_actor.get(key)
            if timing is None:
                timing = self.by_actor[key] = Timing()
            timing.add(end - start)

    def by_actor_snapshot(self) -> dict[str, dict[str, statistics.Totals]]:
        """{request: {cause: totals}}."""
        found: dict[str, dict[str, statistics.Totals]] = {}
        for (actor, name), timing in self.by_actor.items():
            found.setdefault(actor, {})[name] = timing.totals()
        return found
