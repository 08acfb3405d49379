"""What the runs of one mode say together: the numbers that the table and the page both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from deferfs.measure.histogram import Histogram, merge
from deferfs.measure.results import CONTROL, Report, Run
from deferfs.measure.wording import size


class Spans(msgspec.Struct, frozen=True):
    """How often something happened and how long it took together, over all runs of a mode."""

    count: int
    total_ns: int


class ModeSummary(msgspec.Struct, frozen=True):
    """One mode: means over its runs, and `waits`, `requests` and `reclaim_ns` as totals over them."""

    mode: str
    runs: int
    operations_per_second: float
    workload_seconds: float
    backlog: float
    drain_seconds: float
    sync_seconds: float
    stop_seconds: float
    total_seconds: float
    inactivated: float | None
    violations: float | None
    direct_reclaims: float | None
    daemon_cpu_seconds: float | None
    limit_hits: float | None
    memory_stall_us: float | None
    reclaim_ns: int | None
    waits: dict[str, Spans]
    requests: dict[str, Spans]
    responses: dict[str, Histogram]
    kinds: dict[str, Histogram]


def modes_of(report: Report) -> list[str]:
    """The modes that were run, baseline first and the control last."""
    return list(dict.fromkeys((report.settings.baseline, report.settings.candidate, CONTROL)))


def summarize(report: Report) -> list[ModeSummary]:
    """A summary of each mode."""
    return [_summarize_mode(mode, report.of_mode(mode)) for mode in modes_of(report)]


def _summarize_mode(mode: str, runs: Sequence[Run]) -> ModeSummary:
    probes = runs[0].probes
    return ModeSummary(
        mode=mode,
        runs=len(runs),
        operations_per_second=_mean([r.workload.operations / r.workload.seconds for r in runs]),
        workload_seconds=_mean([r.workload.seconds for r in runs]),
        backlog=_mean([r.drain.queued for r in runs]),
        drain_seconds=_mean([r.drain.seconds for r in runs]),
        sync_seconds=_mean([r.drain.sync_seconds for r in runs]),
        stop_seconds=_mean([r.stop_seconds for r in runs]),
        total_seconds=_mean([r.total_seconds for r in runs]),
        inactivated=_grown(runs, "gc", "inactivated_total"),
        violations=_grown(runs, "reclaim_context", "violations_total"),
        direct_reclaims=_grown(runs, "memory", "direct_reclaims_total"),
        daemon_cpu_seconds=_mean_known([r.daemon.cpu_seconds if r.daemon else None for r in runs]),
        limit_hits=_mean_known([r.memory.limit_hits if r.memory else None for r in runs]),
        memory_stall_us=_mean_known([_memory_stall(r) for r in runs]),
        reclaim_ns=_reclaim_ns(runs),
        waits=_spans(runs, "waits"),
        requests=_spans(runs, "requests"),
        responses={probe: merge(r.probes[probe].response for r in runs) for probe in probes},
        kinds={kind: merge(r.workload.kinds[kind] for r in runs) for kind in runs[0].workload.kinds},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def _grown(runs: Sequence[Run], group: str, counter: str) -> float | None:
    """By how much a counter of the daemon grew in a run, on average."""
    growths: list[float | None] = [
        float(run.daemon.after[group][counter]) - float(run.daemon.before[group][counter]) if run.daemon else None
        for run in runs
    ]
    return _mean_known(growths)


def _memory_stall(run: Run) -> float | None:
    if run.memory is None or "memory" not in run.memory.pressure:
        return None
    return float(run.memory.pressure["memory"].some_us)


def _reclaim_ns(runs: Sequence[Run]) -> int | None:
    if not any(run.reclaim for run in runs):
        return None
    return sum(totals.total_ns for run in runs for totals in run.reclaim.values())


def _spans(runs: Sequence[Run], group: str) -> dict[str, Spans]:
    """By how much the counters of `group` (waits by cause, requests by name) grew, over all runs."""
    totals: dict[str, Spans] = {}
    for run in runs:
        if run.daemon is None:
            continue
        for name, after in run.daemon.after.get(group, {}).items():
            before: Mapping[str, Any] = run.daemon.before.get(group, {}).get(name, {})
            known = totals.get(name, Spans(0, 0))
            totals[name] = Spans(
                known.count + int(after["count"]) - int(before.get("count", 0)),
                known.total_ns + int(after["total_ns"]) - int(before.get("total_ns", 0)),
            )
    return totals


def headline(report: Report) -> str:
    """What was run, in one sentence."""
    settings = report.settings
    limit = (
        f"{size(settings.memory_limit_bytes)} memory limit (cgroup v{settings.cgroup_version})"
        if settings.memory_limit_bytes
        else "no memory limit"
    )
    daemon = ", daemon inside" if settings.daemon_inside else ""
    return (
        f"{settings.scenario} on {settings.target}: {settings.pairs} pairs of "
        f"{settings.rounds} rounds, {settings.tree_files:,} cold files, {limit}{daemon}"
    )
