"""Reports with made-up numbers, for the tests of everything that shows them."""

from deferfs.measure.cgroup import MemoryReading
from deferfs.measure.churn import compare, observations
from deferfs.measure.histogram import fold
from deferfs.measure.pressure import Pressure
from deferfs.measure.probes import ProbeResult
from deferfs.measure.results import (
    SCHEMA,
    Daemon,
    Drain,
    Machine,
    Memory,
    Report,
    Run,
    Settings,
)
from deferfs.measure.tracing import ReclaimTotals
from deferfs.measure.workload import WorkloadResult

PROBES = ("create", "fsync")


def statistics(inactivated: int, waited_ns: int) -> dict[str, object]:
    return {
        "pid": 1,
        "gc": {"inactivated_total": inactivated, "queued": 0, "pending_bytes": 0},
        "inodes": {"inactivating": 0},
        "requests": {"forget": {"count": 2, "total_ns": 2 * waited_ns, "max_ns": waited_ns}},
        "reclaim_context": {"violations_total": inactivated},
        "memory": {"direct_reclaims_total": 0},
        "waits": {"log": {"count": 1, "total_ns": waited_ns, "max_ns": waited_ns}},
    }


def probe_result(base_ns: int, due: int = 100) -> ProbeResult:
    histogram = fold(base_ns + step * base_ns // 10 for step in range(100))
    return ProbeResult(10_000_000, due, 100, 0, histogram, histogram)


def run(mode: str, pair: int, base_ns: int) -> Run:
    return Run(
        pair=pair,
        mode=mode,
        total_seconds=base_ns / 1e6,
        workload=WorkloadResult(10, 1000, base_ns / 2e6, {"create": fold([base_ns])}),
        probes={probe: probe_result(base_ns) for probe in PROBES},
        drain=Drain(5, 4096, 0.25, 0.125, complete=True),
        stop_seconds=0.5,
        foreign_cpu_fraction=0.0,
        daemon=Daemon(statistics(0, 0), statistics(40, 3_000_000), 1.5, 80 << 20),
        memory=Memory(
            MemoryReading(1, 2, 3, 0, 4, {}, {"memory": Pressure(9, 5)}),
            limit_hits=12,
            pressure={"memory": Pressure(2_000_000, 5)},
        ),
        reclaim={"create": ReclaimTotals(2, 8_000_000, 5_000_000)},
    )


def report(runs: list[Run] | None = None) -> Report:
    """Two pairs: inline takes 4 and 2 times as long as deferred, deferred as long as the control."""
    if runs is None:
        runs = [
            run(mode, pair, base)
            for pair, bases in ((1, (4_000_000, 1_000_000)), (2, (2_000_000, 1_000_000)))
            for mode, base in (("inline", bases[0]), ("deferred", bases[1]), ("none", bases[1]))
        ]
    settings = Settings(
        scenario="churn",
        target="deferfs",
        baseline="inline",
        candidate="deferred",
        pairs=2,
        rounds=10,
        memory_limit_bytes=48 << 20,
        cgroup_version=2,
        daemon_inside=False,
        tree_files=24_000,
        seed=1,
        mount_options="",
    )
    return Report(
        schema=SCHEMA,
        created="2026-01-01T00:00:00+00:00",
        machine=Machine("6.18", 2, 24 << 30, "3.11", "0.1.0", "ext4"),
        settings=settings,
        notes=["a <note>", *observations(runs)],
        runs=runs,
        comparison=compare(runs, "inline", "deferred"),
    )
