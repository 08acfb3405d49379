"""The statistics of a mount as Prometheus metrics: base units, `deferfs_` in front, a `mountpoint` label on each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deferfs.printable import printable

Statistics = Mapping[str, Any]
Rows = Iterable[tuple[Sequence[str], float]]
"""(label values, value) of each series."""

BUCKET_POWERS: Final = range(12, 36, 2)
"""Bounds of histograms: powers of two of a ns, 4 us to 17 s; each four times the one before."""


def text(statistics: Statistics) -> str:
    """All metrics in the text format."""
    registry = CollectorRegistry()
    registry.register(MountCollector(lambda: statistics))
    return generate_latest(registry).decode()


class MountCollector(Collector):
    """Asks for the statistics at each scrape."""

    def __init__(self, ask: Callable[[], Statistics]) -> None:
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known without asking the daemon."""
        return []

    def collect(self) -> Iterator[Metric]:
        found = self._ask()
        mountpoint = printable(found["mountpoint"])
        families = _Families(mountpoint)
        info = InfoMetricFamily("deferfs_mount", "What is mounted.", labels=("mountpoint",))
        names = ("version", "uuid", "label", "image", "evict")
        info.add_metric([mountpoint], {name: printable(str(found[name])) for name in names})
        yield info
        for part in (_memory, _inodes, _gc, _journal, _space, _reclaim, _timings):
            yield from part(families, found)


class _Families:
    """Makes metrics with the label that all of them have."""

    def __init__(self, mountpoint: str) -> None:
        self._mountpoint = mountpoint

    def gauge(self, name: str, help_text: str, rows: Rows | float, labels: Sequence[str] = ()) -> Metric:
        family = GaugeMetricFamily(f"deferfs_{name}", help_text, labels=("mountpoint", *labels))
        for values, value in _rows(rows):
            family.add_metric((self._mountpoint, *values), value)
        return family

    def counter(self, name: str, help_text: str, rows: Rows | float, labels: Sequence[str] = ()) -> Metric:
        """`name` without its `_total`."""
        family = CounterMetricFamily(f"deferfs_{name}", help_text, labels=("mountpoint", *labels))
        for values, value in _rows(rows):
            family.add_metric((self._mountpoint, *values), value)
        return family

    def histogram(
        self, name: str, help_text: str, timings: Iterable[tuple[Sequence[str], Statistics]], labels: Sequence[str] = ()
    ) -> Metric:
        """Of timings as the statistics have them; seconds."""
        family = HistogramMetricFamily(f"deferfs_{name}", help_text, labels=("mountpoint", *labels))
        for values, timing in timings:
            family.add_metric((self._mountpoint, *values), _buckets(timing), timing["total_ns"] / 1e9)
        return family


def _rows(rows: Rows | float) -> Rows:
    return [((), float(rows))] if isinstance(rows, int | float) else rows


def _buckets(timing: Statistics) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    counts = {int(bound): count for bound, count in timing["log2_ns"].items()}
    found = []
    for power in BUCKET_POWERS:
        below = sum(count for bound, count in counts.items() if bound <= 1 << power)
        found.append((repr((1 << power) / 1e9), float(below)))
    return [*found, ("+Inf", float(timing["count"]))]


def _memory(make: _Families, found: Statistics) -> Iterator[Metric]:
    memory = found["memory"]
    yield make.gauge("uptime_seconds", "Age of the daemon.", found["uptime_seconds"])
    yield make.gauge("memory_budget_bytes", "Budget of both caches.", memory["budget_bytes"])
    yield make.gauge("memory_reserve_bytes", "Part of it that only cleanups may use.", memory["reserve_bytes"])
    used = [
        ((name,), memory[key])
        for name, key in (
            ("inodes", "inode_bytes"),
            ("blocks", "block_bytes"),
            ("superseded", "superseded_bytes"),
            ("tables", "table_bytes"),
            ("debts", "debt_bytes"),
            ("buffers", "buffer_bytes"),
        )
    ]
    yield make.gauge("memory_dirty_bytes", "Blocks that have to be written home.", memory["dirty_bytes"])
    yield make.gauge("memory_resident_bytes", "VmRSS of the daemon.", memory["resident_bytes"])
    yield make.gauge("memory_resident_highest_bytes", "VmHWM of the daemon.", memory["resident_highest_bytes"])
    yield make.gauge("memory_promised_bytes", "What VmHWM stays below.", memory["promised_bytes"])
    yield make.gauge("memory_used_bytes", "Memory in use.", used, ("cache",))
    yield make.counter(
        "direct_reclaims", "Operations that had to reclaim memory themselves.", memory["direct_reclaims_total"]
    )


def _inodes(make: _Families, found: Statistics) -> Iterator[Metric]:
    inodes = found["inodes"]
    states = ("active", "idle", "queued", "inactivating", "quarantined")
    yield make.gauge(
        "inodes", "Inodes in memory by state.", [((state,), inodes[state]) for state in states], ("state",)
    )
    anomalies = [((kind,), count) for kind, count in inodes["anomalies"].items()]
    yield make.counter("anomalies", "Malformed requests by kind.", anomalies, ("kind",))


def _gc(make: _Families, found: Statistics) -> Iterator[Metric]:
    gc = found["gc"]
    yield make.gauge("gc_backlog_inodes", "Inodes that wait for cleanup, or are being cleaned up.", gc["queued"])
    yield make.gauge("gc_in_table_inodes", "Those of them that wait in the orphan table alone.", gc["in_table"])
    yield make.gauge("gc_pending_bytes", "Space that cleanups will free.", gc["pending_bytes"])
    yield make.gauge("gc_oldest_seconds", "Age of the oldest queued inode.", gc["oldest_seconds"])
    yield make.gauge("gc_times_owed", "Access times that inodes owe which are not in memory.", gc["times_owed"])
    yield make.gauge("gc_workers", "Size of the pool.", gc["workers"])
    queues = list(enumerate(gc["queues"]))
    for key, name in (("depth", "inodes"), ("bytes", "bytes"), ("oldest_seconds", "oldest_seconds")):
        rows = [((str(number),), queue[key]) for number, queue in queues]
        yield make.gauge(f"gc_queue_{name}", f"Of each queue: {key.replace('_', ' ')}.", rows, ("queue",))
    for name, help_text in (
        ("queued", "Inodes handed to the workers."),
        ("inactivated", "Inodes cleaned up, by whomever."),
        ("cancelled", "Cleanups cancelled because the inode was wanted again."),
        ("errors", "Failed attempts."),
        ("quarantined", "Inodes given up."),
        ("batches", "Batches taken."),
        ("times_paid", "Access times written for inodes that were not in memory."),
    ):
        yield make.counter(f"gc_{name}", help_text, gc[f"{name}_total"])
    yield make.histogram("gc_inactivation_seconds", "Duration of each cleanup.", [((), gc["inactivation"])])
    throttle = found["throttle"]
    yield make.gauge("throttled_requests", "Requests held back now.", throttle["waiting"])
    yield make.counter("throttle_expired", "Waits that ended with the deadline.", throttle["expired_total"])


def _journal(make: _Families, found: Statistics) -> Iterator[Metric]:
    journal = found["journal"]
    yield make.gauge("journal_blocks", "Size of the log.", journal["blocks"])
    yield make.gauge("journal_used_blocks", "Log blocks that a checkpoint has to free.", journal["used_blocks"])
    yield make.gauge("journal_running_blocks", "Size of the running transaction.", journal["running_blocks"])
    for name in ("commits", "checkpoints", "blocks_logged", "revokes"):
        yield make.counter(f"journal_{name}", f"{name.replace('_', ' ').capitalize()}.", journal[f"{name}_total"])
    yield make.gauge("journal_aborted", "1 after an IO error: nothing is written any more.", bool(journal["aborted"]))
    yield make.gauge("read_only", "1 when nothing can be changed.", found["read_only"])
    yield make.counter("corruptions", "Damaged metadata met.", found["corruptions_total"])


def _space(make: _Families, found: Statistics) -> Iterator[Metric]:
    space = found["space"]
    size = space["block_size"]
    yield make.gauge("size_bytes", "Size of the filesystem.", space["blocks"] * size)
    yield make.gauge("free_bytes", "Free space, what cleanups will free included.", space["free_blocks"] * size)
    yield make.gauge("pending_free_bytes", "The part of it that is not free yet.", space["pending_free_blocks"] * size)
    yield make.gauge("orphans", "Deleted files whose space is not freed yet.", space["orphans"])


def _reclaim(make: _Families, found: Statistics) -> Iterator[Metric]:
    reclaim = found["reclaim_context"]
    waits = [(violation.split(":", 1), count) for violation, count in reclaim["violations"].items()]
    yield make.counter("reclaim_waits", "Waits where memory reclaim would have waited.", waits, ("source", "cause"))
    yield make.gauge("lock_order_cycles", "Possible circular waits seen.", reclaim["lock_order_cycles"])
    yield make.counter(
        "circular_waits_broken", "Waits that could never have ended.", reclaim["circular_waits_broken_total"]
    )


def _timings(make: _Families, found: Statistics) -> Iterator[Metric]:
    requests = [((name,), timing) for name, timing in found["requests"].items()]
    yield make.histogram("request_seconds", "Duration of requests.", requests, ("request",))
    waits = [((name,), timing) for name, timing in found["waits"].items()]
    yield make.histogram("wait_seconds", "Duration of waits by cause.", waits, ("cause",))
    causes = list(
        itertools.chain.from_iterable(
            [((request, cause), timing) for cause, timing in of_request.items()]
            for request, of_request in found["waits_by_request"].items()
        )
    )
    counts = [(labels, timing["count"]) for labels, timing in causes]
    yield make.counter("request_waits", "Waits by request and cause.", counts, ("request", "cause"))
    seconds = [(labels, timing["total_ns"] / 1e9) for labels, timing in causes]
    yield make.counter("request_wait_seconds", "Time waited by request and cause.", seconds, ("request", "cause"))
