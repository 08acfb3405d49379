"""A rate limit on the transactions of background cleanup, in which no operation waits.

**Invariant**: in any interval of `t` ns at most `rate * (t + PACE_BURST_NS) / 1e9 + 1` transactions are admitted.
"""

from __future__ import annotations

from collections.abc import Callable

from deferfs.limits import PACE_BURST_NS


class Pace:
    """A token bucket. `rate`: transactions per second, 0 for no limit. `clock` returns ns."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.rate = 0.0
        self._next_ns = 0
        """When the next transaction is due; at most PACE_BURST_NS of unused time is credited."""

    def wait_ns(self) -> int:
        """Time until the next transaction may begin, in ns; 0 for now."""
        return max(0, self._next_ns - self.clock()) if self.rate else 0

    def spend(self) -> None:
        """Count one transaction, including one that did not wait because an operation needed it."""
        if self.rate:
            self._next_ns = max(self._next_ns, self.clock() - PACE_BURST_NS) + int(1e9 / self.rate)

    def set_rate(self, rate: float) -> None:
        """Set the rate from now on, without any delay left from the earlier one."""
        self.rate = rate
        self._next_ns = 0

    def batch(self, count_max: int) -> int:
        """How many inodes to take at once: at most as many as one burst allows, at least one."""
        if not self.rate:
            return count_max
        return max(1, min(count_max, int(self.rate * PACE_BURST_NS / 1e9)))
