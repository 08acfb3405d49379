"""Looking out for the next request for a moment, before going to sleep until it comes.

A client that works through many files sends its next request some 10 to 50 us after the answer to the last one. Going
to sleep and being woken costs both sides more than that, on a virtual machine several times as much: the wake-up is an
interrupt to another processor. So the reader looks again and again for a bounded time (QEMU's `poll-max-ns`, KVM's
`halt_poll_ns`), which adapts: it grows while requests come soon, and shrinks to nothing when they do not, so that an
idle mount costs nothing.

**Invariant:** `0 <= window_ns <= limit_ns`; where the daemon may use one processor only, `window_ns` is 0: the time
would be taken from the client.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from deferfs.contract.statistics import Poll

START_NS: Final = 4_000
"""The first window that is tried, as in QEMU; below it a shrinking one closes."""
_US: Final = 1_000


def usable_processors() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0))


class BusyPoll:
    """The window of one reader. `limit_us` is the longest it may become; 0 switches looking off."""

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
        """Change the limit; the window adapts to it from the start."""
        self._limit_ns = limit_us * _US
        self.window_ns = 0

    def look(self, is_ready: Callable[[], object], start_ns: int) -> bool:
        """Ask `is_ready` until it says yes or the window, which opened at `start_ns`, has closed; its last answer."""
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
        """A request has come after `waited_ns` altogether: adapt the window."""
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
        """The counters of this moment."""
        return Poll(
            limit_us=self._limit_ns // _US,
            window_ns=self.window_ns,
            hits_total=self._hits,
            misses_total=self._misses,
            spent_ns_total=self._spent_ns,
        )
