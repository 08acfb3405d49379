"""How fast the cleanup may go when nobody waits for it: a limit on its transactions.

**Invariant**: over any time `t` (ns) no more than `rate * (t + PACE_BURST_NS) / 1e9 + 1` transactions are let go.
"""

from __future__ import annotations

from collections.abc import Callable

from deferfs.limits import PACE_BURST_NS


class Pace:
    """`rate`: transactions a second, 0 without limit. `clock` returns ns."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.rate = 0.0
        self._next_ns = 0
        """When the next transaction is due; what was not used for longer than a burst is gone."""

    def wait_ns(self) -> int:
        """How long the next transaction has to wait; 0 when it may begin."""
        return max(0, self._next_ns - self.clock()) if self.rate else 0

    def spend(self) -> None:
        """One transaction has been done, in time or, because somebody waited for it, before."""
        if self.rate:
            self._next_ns = max(self._next_ns, self.clock() - PACE_BURST_NS) + int(1e9 / self.rate)

    def set_rate(self, rate: float) -> None:
        """From now on; what an earlier rate has left to wait is forgotten."""
        self.rate = rate
        self._next_ns = 0

    def batch(self, count_max: int) -> int:
        """How many inodes to take at a time: no more than may be done in a burst, at least one."""
        if not self.rate:
            return count_max
        return max(1, min(count_max, int(self.rate * PACE_BURST_NS / 1e9)))
