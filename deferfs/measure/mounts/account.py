"""The costs of a pass on a slow mount: by the daemon's own statistics, by its disk, and by the kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from deferfs.contract.statistics import NEVER, Statistics, Totals
from deferfs.measure.scenario import Wait
from deferfs.measure.slow_disk.counters import work_between


class Accountable(Protocol):
    """A mount with statistics. `resident_highest_bytes` is valid once it has been closed."""

    resident_highest_bytes: int

    def statistics(self) -> Statistics | None:
        """The daemon's statistics; None for another filesystem than deferfs."""

    def disk_counters(self) -> dict[str, int]:
        """Counters of the slow disk; empty without one. Also after `close`."""

    def close(self) -> float:
        """Finish all cleanups and write everything home; returns the time that took, in seconds."""


class Account:
    """Costs from construction on. `watch` while the load runs, `settle` when it has ended."""

    def __init__(self, mount: Accountable) -> None:
        self._mount = mount
        self._before = self._after = mount.statistics()
        self._disk_before = mount.disk_counters()
        self._used_highest = self._used()
        self._owed_seconds = 0.0

    def watch(self) -> None:
        """Sample how much of the budget is in use."""
        self._after = self._mount.statistics()
        self._used_highest = max(self._used_highest, self._used())

    def settle(self) -> None:
        """The load has ended: close the mount, which finishes all cleanups."""
        self.watch()
        self._owed_seconds = self._mount.close()

    @property
    def owed_seconds(self) -> float:
        """Time until nothing was owed and everything was written home."""
        return self._owed_seconds

    def waits(self) -> dict[str, Wait]:
        """The daemon's waits during the load, by cause; see `waits_between`."""
        if self._before is None or self._after is None:
            return {}
        return waits_between(self._before.waits, self._after.waits)

    def counters(self) -> dict[str, float]:
        """As in `Pass.counters`. The disk's are those of load and close together. `used_highest_bytes` is the highest
        sample; `resident_highest_bytes` is exact, and includes the mount; `queued_total` inodes waited for
        inactivation, or owed an access time, when the load ended.
        """
        counters: dict[str, float] = {"owed_seconds": self._owed_seconds}
        before, after = self._before, self._after
        if before is not None and after is not None:
            for name, total in DAEMON_COUNTERS.items():
                counters[name] = total(after) - total(before)
            counters["queued_total"] = after.gc.queued + after.gc.times_owed
            counters["budget_bytes"] = after.memory.budget_bytes
            counters["promised_bytes"] = after.memory.promised_bytes
            counters["used_highest_bytes"] = self._used_highest
            counters["resident_highest_bytes"] = self._mount.resident_highest_bytes
        return counters | work_between(self._disk_before, self._mount.disk_counters())

    def _used(self) -> int:
        return self._after.memory.used_bytes if self._after is not None else 0


DAEMON_COUNTERS: Final[dict[str, Callable[[Statistics], int]]] = {
    "inactivated_total": lambda found: found.gc.inactivated_total,
    "direct_reclaims_total": lambda found: found.memory.direct_reclaims_total,
    "reclaim_waits_total": lambda found: found.reclaim_context.violations_total,
    "commits_total": lambda found: found.journal.commits_total,
}
"""Name in a pass -> total in the daemon's statistics."""


def waits_between(before: Mapping[str, Totals], after: Mapping[str, Totals]) -> dict[str, Wait]:
    """Waits by cause between two snapshots of a daemon's waits; causes without any are left out. The daemon has one
    maximum since its mount: it is 0 here when the longest wait was before the first snapshot.
    """
    found = {}
    for cause, now in after.items():
        then = before.get(cause, NEVER)
        if count := now.count - then.count:
            longest = now.max_ns if now.max_ns > then.max_ns else 0
            found[cause] = Wait(count, now.total_ns - then.total_ns, longest)
    return found
