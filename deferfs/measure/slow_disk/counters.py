"""What a slow disk has done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from deferfs.measure.slow_disk.model import Service
from deferfs.measure.slow_disk.wire import Kind


class Counters(msgspec.Struct):
    """Since the disk was started.

    `queue_max`: most requests that the disk held at a time. `service_ns`: sum of the times from arrival to the end that
    the model gave. `late_ns`, `late_max_ns`: by how much later than that answers were given, all together and at most:
    the price of sleeping on a real machine, and of an image whose own disk is slower than the one it plays.
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
        """A request for the disk was read; `queued` are before it or with it in the disk."""
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
        """Its answer is about to be given."""
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
"""Name in a pass: field of `Counters`. Maxima since the start of the disk are none of one pass."""


def work_between(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """What a disk did between two looks at its counters, by the names of a pass's counters; empty without a disk."""
    return {name: after[field] - before[field] for name, field in NAMES.items() if field in after}
