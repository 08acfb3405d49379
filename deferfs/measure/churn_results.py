"""What one run of the churn workload gives."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from deferfs.measure.cgroup import MemoryReading
from deferfs.measure.histogram import Histogram
from deferfs.measure.pressure import Pressure
from deferfs.measure.probes import ProbeResult
from deferfs.measure.statistics import RatioSummary
from deferfs.measure.tracing import ReclaimTotals
from deferfs.measure.workload import WorkloadResult

CONTROL: Final = "none"
PERCENTILES: Final = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class Settings(msgspec.Struct, frozen=True):
    """How the benchmark was run: the same for each of its runs."""

    scenario: str
    target: str
    baseline: str
    """The mode in the numerator of each ratio."""
    candidate: str
    """The mode in the denominator."""
    pairs: int
    rounds: int
    memory_limit_bytes: int | None
    cgroup_version: int | None
    daemon_inside: bool
    tree_files: int
    seed: int
    mount_options: str


class Machine(msgspec.Struct, frozen=True):
    """Where it was run."""

    kernel: str
    cpus: int
    memory_bytes: int
    python: str
    deferfs: str
    scratch_filesystem: str
    """Type of the filesystem that holds the image or the tree: fsync costs nothing on tmpfs."""


class Drain(msgspec.Struct, frozen=True):
    """The debt at the end of the workload, and what paying it took. Inactivation that was put off
    ends here.
    """

    queued: int
    pending_bytes: int
    seconds: float
    sync_seconds: float
    complete: bool
    """False when the backlog was still there at the deadline."""


class Daemon(msgspec.Struct, frozen=True):
    """The filesystem's own account: `deferfs stat --json` before and after, and its process."""

    before: dict[str, Any]
    after: dict[str, Any]
    cpu_seconds: float
    resident_bytes_max: int


class Memory(msgspec.Struct, frozen=True):
    """The memory cgroup after the workload; `pressure` (us) and `limit_hits` count from the start
    of the workload.
    """

    reading: MemoryReading
    limit_hits: int
    pressure: dict[str, Pressure]


class Run(msgspec.Struct, frozen=True):
    """One run of the scenario in one mode. `total_seconds` is workload, drain and sync together."""

    pair: int
    mode: str
    total_seconds: float
    workload: WorkloadResult
    probes: dict[str, ProbeResult]
    drain: Drain
    stop_seconds: float
    foreign_cpu_fraction: float
    """Part of all processors that went to processes which do not belong to the run."""
    daemon: Daemon | None
    memory: Memory | None
    reclaim: dict[str, ReclaimTotals]


class Comparison(msgspec.Struct, frozen=True):
    """Ratios baseline/candidate, so above 1 the candidate is faster.

    `probes` maps probe -> percentile -> ratios of response times; `control` is candidate/control
    in the same shape: 1 means that the candidate is as fast as having nothing to clean up.
    `total_seconds` compares the time for the whole work, debt included; `throughput` the
    operations per second of the workload alone, turned round so that above 1 the candidate is
    faster here too.
    """

    probes: dict[str, dict[str, RatioSummary]]
    control: dict[str, dict[str, RatioSummary]]
    total_seconds: RatioSummary | None
    throughput: RatioSummary | None


class Report(msgspec.Struct, frozen=True):
    """Everything about one benchmark. `notes` are the things a reader must know, one line each."""

    schema: str
    created: str
    machine: Machine
    settings: Settings
    notes: list[str]
    runs: list[Run]
    comparison: Comparison

    def of_mode(self, mode: str) -> list[Run]:
        """The runs in `mode`, in order of the pairs."""
        return sorted((run for run in self.runs if run.mode == mode), key=lambda run: run.pair)


def response_of(run: Run, probe: str) -> Histogram:
    """The response times of one probe in one run."""
    return run.probes[probe].response
