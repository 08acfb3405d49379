"""Counters of a slow disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from deferfs.measure.slow_disk.model import Service
from deferfs.measure.slow_disk.wire import Kind


class Counters(msgspec.Struct):
    """Counters since the start of the disk.

    `queue_max`: maximum of requests in the disk at a time. `service_ns`: sum of the times from arrival to the end given
    by the model. `late_ns`, `late_max_ns`: total and longest delay of answers beyond that: the inaccuracy of sleeping
    on a real machine, and of an image whose own disk is slower than the model.
    """

    reads: int = 0
    writes: int = 0
    flushes: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    errors: int = 0
    queue_max: int = 0
    service_ns: int = 0
    service_max_ns: int = 0
    late_ns: int = 0
    late_max_ns: int = 0

    def arrived(self, kind: Kind, length: int, queued: int, service_ns: int) -> None:
        """A request was read; `queued` requests are in the disk, including it."""
        if kind == "read":
            self.reads += 1
            self.read_bytes += length
        elif kind == "write":
            self.writes += 1
            self.write_bytes += length
        else:
            self.flushes += 1
        self.queue_max = max(self.queue_max, queued)
        self.service_ns += service_ns
        self.service_max_ns = max(self.service_max_ns, service_ns)

    def ended(self, service: Service, now: int) -> None:
        """Record that the answer of `service` is about to be sent, at `now` (ns)."""
        late = max(0, now - service.end)
        self.late_ns += late
        self.late_max_ns = max(self.late_max_ns, late)


NAMES: Final = {
    "disk_reads_total": "reads",
    "disk_writes_total": "writes",
    "disk_flushes_total": "flushes",
    "disk_errors_total": "errors",
    "disk_read_bytes": "read_bytes",
    "disk_written_bytes": "write_bytes",
    "disk_service_ns": "service_ns",
    "disk_late_ns": "late_ns",
}
"""Name in a pass -> field of `Counters`. Maxima, which count from the start of the disk, are not those of one pass."""


def work_between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """The work of a disk between two snapshots of its counters, by the names in a pass; empty without a disk."""
    return {name: after[field] - before[field] for name, field in NAMES.items() if field in after}
