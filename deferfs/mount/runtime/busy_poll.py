"""Busy polling for the next request before going to sleep.

A client that works through many files sends its next request some 10 to 50 us after the last reply. Sleeping and being
woken costs both sides more than that, on a virtual machine several times as much, as the wake-up is an interrupt to
another processor. So the reader polls for a bounded time (like QEMU's `poll-max-ns` and KVM's `halt_poll_ns`). The time
adapts: it grows while requests arrive soon, and shrinks to zero when they do not, so that an idle mount costs nothing.

**Invariant:** `0 <= window_ns <= limit_ns`; when the daemon may use only one processor, `window_ns` is 0: polling would
take time from the client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from deferfs.contract.statistics import Poll

START_NS: Final = 4_000
"""The first window tried, as in QEMU; a window that shrinks below it becomes 0."""
_US: Final = 1_000


def usable_processors() -> int:
    """Number of processors this process may run on."""
    return len(os.sched_getaffinity(0))


class BusyPoll:
    """The polling window of one reader. `limit_us` is its maximum; 0 switches polling off."""

    def __init__(
        self,
        limit_us: int,
        *,
        clock: Callable[[], int] = time.perf_counter_ns,
        processors: Callable[[], int] = usable_processors,
    ) -> None:
        self.clock = clock
        self._processors = processors
        self._limit_ns = limit_us * _US
        self.window_ns = 0
        self._hits = 0
        self._misses = 0
        self._spent_ns = 0

    def set_limit(self, limit_us: int) -> None:
        """Change the limit; the window adapts from its start value."""
        self._limit_ns = limit_us * _US
        self.window_ns = 0

    def look(self, is_ready: Callable[[], object], start_ns: int) -> bool:
        """Call `is_ready` until it returns True or the window, opened at `start_ns`, has closed; its last result."""
        if not self.window_ns:
            return False
        clock = self.clock
        end = start_ns + self.window_ns
        while True:
            ready = is_ready()
            now = clock()
            if ready or now >= end:
                break
        self._spent_ns += now - start_ns
        if ready:
            self._hits += 1
        else:
            self._misses += 1
        return bool(ready)

    def waited(self, waited_ns: int) -> None:
        """Adapt the window: a request arrived after `waited_ns` in total."""
        if waited_ns <= self.window_ns:
            return
        if waited_ns >= self._limit_ns:
            half = self.window_ns // 2
            self.window_ns = half if half >= START_NS else 0
        elif self.window_ns:
            self.window_ns = min(2 * self.window_ns, self._limit_ns)
        elif self._processors() > 1:
            self.window_ns = min(START_NS, self._limit_ns)

    def statistics(self) -> Poll:
        """The current counters."""
        return Poll(
            limit_us=self._limit_ns // _US,
            window_ns=self.window_ns,
            hits_total=self._hits,
            misses_total=self._misses,
            spent_ns_total=self._spent_ns,
        )
