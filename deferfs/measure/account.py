"""What a pass on a slow mount has cost: by the daemon's own statistics, by its disk, and by the kernel."""

from __future__ import annotations

from deferfs.measure.scenario import Wait
from deferfs.measure.slow_mount import SlowMount, Statistics


class Account:
    """From its making on. `watch` while the load runs, `settle` when it has ended, then `close` the mount."""

    def __init__(self, mount: SlowMount) -> None:
        self._mount = mount
        self._before = self._after = mount.statistics()
        self._disk_before = mount.disk.counters()
        self._used_highest = self._used()
        self._owed_seconds = 0.0

    def watch(self) -> None:
        """Look how much of the budget is used."""
        self._after = self._mount.statistics()
        self._used_highest = max(self._used_highest, self._used())

    def settle(self) -> None:
        """The load has ended: unmount, which pays all that is owed."""
        self.watch()
        self._owed_seconds = self._mount.close()

    @property
    def owed_seconds(self) -> float:
        """How long it took until nothing was owed and all was at home."""
        return self._owed_seconds

    def waits(self) -> dict[str, Wait]:
        """The daemon's waits during the load, by cause; see `waits_between`."""
        return waits_between(self._before, self._after)

    def counters(self) -> dict[str, float]:
        """As `Pass.counters` has them. The disk's are those of load and unmount together. `used_highest_bytes` is the
        most that was seen; `resident_highest_bytes` is exact, and holds the mount too; `queued_total` waited for
        their inactivation when the load ended.
        """
        memory, gc = self._after["memory"], self._after["gc"]
        disk = self._mount.disk.counters()
        counters = {
            "owed_seconds": self._owed_seconds,
            "queued_total": gc["queued"],
            "inactivated_total": gc["inactivated_total"] - self._before["gc"]["inactivated_total"],
            "direct_reclaims_total": self._grown("memory", "direct_reclaims_total"),
            "reclaim_waits_total": self._grown("reclaim_context", "violations_total"),
            "commits_total": self._grown("journal", "commits_total"),
            "budget_bytes": memory["budget_bytes"],
            "used_highest_bytes": self._used_highest,
            "resident_highest_bytes": self._mount.resident_highest_bytes,
            "promised_bytes": memory["promised_bytes"],
        }
        for name, field in DISK_COUNTERS.items():
            counters[name] = disk[field] - self._disk_before[field]
        return counters

    def _used(self) -> int:
        return int(self._after["memory"]["used_bytes"])

    def _grown(self, section: str, key: str) -> int:
        return int(self._after[section][key] - self._before[section][key])


DISK_COUNTERS = {
    "disk_reads_total": "reads",
    "disk_writes_total": "writes",
    "disk_flushes_total": "flushes",
    "disk_read_bytes": "read_bytes",
    "disk_written_bytes": "write_bytes",
}
"""Name in a pass: name in `SlowDisk.counters`."""


def waits_between(before: Statistics, after: Statistics) -> dict[str, Wait]:
    """Waits by cause between two looks at a daemon's statistics; causes without one are left out. The daemon keeps one
    maximum since its mount: it is 0 here when the longest wait was before the first look.
    """
    found = {}
    for cause, now in after["waits"].items():
        then = before["waits"].get(cause, {"count": 0, "total_ns": 0, "max_ns": 0})
        if count := now["count"] - then["count"]:
            longest = now["max_ns"] if now["max_ns"] > then["max_ns"] else 0
            found[cause] = Wait(count, now["total_ns"] - then["total_ns"], longest)
    return found
