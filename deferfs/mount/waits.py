"""Where foreground requests spent their time: counts and durations, by request and by cause of waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

WAIT_KINDS = ("log", "memory", "io", "gc", "space", "commit", "throttle", "thaw")


@dataclass(slots=True)
class Timing:
    """Totals of one kind of event, in ns."""

    count: int = 0
    total_ns: int = 0
    max_ns: int = 0

    def add(self, elapsed_ns: int) -> None:
        self.count += 1
        self.total_ns += elapsed_ns
        if elapsed_ns > self.max_ns:
            self.max_ns = elapsed_ns

    def snapshot(self) -> dict[str, int]:
        return {"count": self.count, "total_ns": self.total_ns, "max_ns": self.max_ns}


class Timings:
    """Timings by name; unknown names start at zero."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.by_name: dict[str, Timing] = {name: Timing() for name in names}
        self.events = 0
        """All of them, whatever their names."""

    def add(self, name: str, elapsed_ns: int) -> None:
        timing = self.by_name.get(name)
        if timing is None:
            timing = self.by_name[name] = Timing()
        self.events += 1
        timing.count += 1
        timing.total_ns += elapsed_ns
        if elapsed_ns > timing.max_ns:
            timing.max_ns = elapsed_ns

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            self.add(name, time.perf_counter_ns() - start)

    def snapshot(self) -> dict[str, dict[str, int]]:
        return {name: timing.snapshot() for name, timing in self.by_name.items()}
