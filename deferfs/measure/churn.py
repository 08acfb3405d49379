"""The churn scenario: the modes in turn on the same state, pair after pair, and what they say
together.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from deferfs.measure.histogram import Histogram
from deferfs.measure.machine import describe_machine
from deferfs.measure.results import (
    CONTROL,
    PERCENTILES,
    SCHEMA,
    Comparison,
    Report,
    Run,
    Settings,
)
from deferfs.measure.run import Conditions, perform
from deferfs.measure.statistics import RatioSummary, summarize_ratios
from deferfs.measure.targets import Target
from deferfs.measure.tracing import ReclaimTrace

ROUNDS_MAX: Final = 320
"""Rounds that there are victims for, when --rounds does not say more."""
SEED: Final = 20_260
FOREIGN_FRACTION: Final = 0.1
"""Above this part of the processors used by others, a run was not alone on the machine."""
SATURATED_FRACTION: Final = 0.9
"""A probe that did less than this part of what was due could not keep its pace."""

Progress = Callable[[str], None]


def run_churn(
    target: Target,
    conditions: Conditions,
    pairs: int,
    trace: ReclaimTrace,
    notes: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Report:
    """Prepare `target`, then run baseline, candidate and control `pairs` times in turn.

    When `conditions.work.rounds` is 0, one run of the baseline that is not reported tells how many
    rounds fit into `conditions.work.seconds`; every reported run then does exactly that many.
    """
    work = conditions.work
    progress(f"preparing {work.tree_files:,} cold files and {work.victims:,} to delete")
    target.prepare(work.tree_files, work.victims)
    if not work.rounds:
        progress("finding out how much work fits into a run")
        rounds = perform(target, target.baseline, 0, conditions, trace).workload.rounds
        work = msgspec.structs.replace(work, rounds=rounds)
        conditions = msgspec.structs.replace(conditions, work=work)
    modes = list(dict.fromkeys((target.baseline, target.candidate, CONTROL)))
    runs = []
    for pair in range(1, pairs + 1):
        for mode in modes:
            progress(f"pair {pair} of {pairs}: {mode}")
            runs.append(perform(target, mode, pair, conditions, trace))
    settings = _settings(target, conditions, pairs)
    return Report(
        schema=SCHEMA,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        machine=describe_machine(target.scratch),
        settings=settings,
        notes=[*notes, *observations(runs)],
        runs=runs,
        comparison=compare(runs, settings.baseline, settings.candidate),
    )


def _settings(target: Target, conditions: Conditions, pairs: int) -> Settings:
    hierarchy = conditions.hierarchy
    return Settings(
        scenario="churn",
        target=target.name,
        baseline=target.baseline,
        candidate=target.candidate,
        pairs=pairs,
        rounds=conditions.work.rounds,
        memory_limit_bytes=conditions.memory_limit_bytes if hierarchy else None,
        cgroup_version=hierarchy.version if hierarchy else None,
        daemon_inside=conditions.daemon_inside,
        tree_files=conditions.work.tree_files,
        seed=conditions.work.seed,
        mount_options=target.mount_options,
    )


def compare(runs: Sequence[Run], baseline: str, candidate: str) -> Comparison:
    """Ratios of the modes, pair by pair."""
    by_mode = {
        mode: sorted((run for run in runs if run.mode == mode), key=lambda run: run.pair)
        for mode in (baseline, candidate, CONTROL)
    }
    slow, fast = by_mode[baseline], by_mode[candidate]
    return Comparison(
        probes=_probe_ratios(slow, fast),
        control=_probe_ratios(fast, by_mode[CONTROL]),
        total_seconds=summarize_ratios([run.total_seconds for run in slow], [run.total_seconds for run in fast]),
        throughput=summarize_ratios([run.workload.seconds for run in slow], [run.workload.seconds for run in fast]),
    )


def _probe_ratios(above: Sequence[Run], below: Sequence[Run]) -> dict[str, dict[str, RatioSummary]]:
    ratios: dict[str, dict[str, RatioSummary]] = {}
    for probe in above[0].probes if above else ():
        row = {}
        for label, percent in PERCENTILES.items():
            summary = summarize_ratios(_percentiles(above, probe, percent), _percentiles(below, probe, percent))
            if summary is not None:
                row[label] = summary
        ratios[probe] = row
    return ratios


def _percentiles(runs: Sequence[Run], probe: str, percent: float) -> list[float]:
    responses: list[Histogram] = [run.probes[probe].response for run in runs]
    return [float(response.percentile(percent)) for response in responses]


def observations(runs: Sequence[Run]) -> list[str]:
    """What a reader of the numbers must know about these runs, one line each."""
    notes = []
    for mode in dict.fromkeys(run.mode for run in runs):
        ours = [run for run in runs if run.mode == mode]
        for probe in ours[0].probes:
            due = sum(run.probes[probe].due for run in ours)
            done = sum(run.probes[probe].done for run in ours)
            failed = sum(run.probes[probe].failed for run in ours)
            if failed:
                notes.append(f"{mode}: {failed} of {done + failed} {probe} operations failed")
            if done + failed < due * SATURATED_FRACTION:
                notes.append(f"{mode}: the {probe} probe kept only {done / due:.0%} of its pace")
        foreign = max(run.foreign_cpu_fraction for run in ours)
        if foreign > FOREIGN_FRACTION:
            notes.append(f"{mode}: other programs took up to {foreign:.0%} of the processors during a run")
        unfinished = sum(not run.drain.complete for run in ours)
        if unfinished:
            notes.append(f"{mode}: in {unfinished} runs the backlog was not drained in time")
        killed = sum(run.memory.reading.oom_kills for run in ours if run.memory)
        if killed:
            notes.append(f"{mode}: {killed} processes were killed for want of memory")
    return notes
