"""One run: the workload and the probes inside the cgroup, the daemon outside, everything read
before and after.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.cgroup import Hierarchy, MemoryCgroup, MemoryReading
from deferfs.measure.churn_results import CONTROL, Daemon, Drain, Memory, Run
from deferfs.measure.machine import process_cpu_seconds, process_memory_bytes
from deferfs.measure.probes import ProbeResult, standard_probes
from deferfs.measure.processes import Job, StopFlag, Worker
from deferfs.measure.targets import Opened, Statistics, Target
from deferfs.measure.tracing import ReclaimTrace, totals_by_name
from deferfs.measure.workload import Churn, Work, WorkloadResult

RUN_SECONDS_MAX: Final = 300.0
"""A run that takes longer than this is stuck."""
PROBE_SECONDS_MAX: Final = 60.0
"""A probe ends after the operation that it is in; the longest of these is a commit."""
DRAIN_SECONDS_MAX: Final = 60.0
DRAIN_POLL_SECONDS: Final = 0.02


class Conditions(msgspec.Struct, frozen=True):
    """What is the same for every run. `hierarchy` is None for a run without a memory limit."""

    work: Work
    hierarchy: Hierarchy | None
    memory_limit_bytes: int
    daemon_inside: bool
    probing: bool = True


def perform(target: Target, mode: str, pair: int, conditions: Conditions, trace: ReclaimTrace) -> Run:
    """Run the workload once on `target` in `mode`. Everything made for it is gone afterwards,
    whatever happens.
    """
    work = msgspec.structs.replace(conditions.work, keep_links=mode == CONTROL)
    with target.opened(mode) as opened:
        measured = _measure(opened, work, conditions, trace)
    return msgspec.structs.replace(measured, pair=pair, mode=mode, stop_seconds=opened.stop_seconds)


def _measure(opened: Opened, work: Work, conditions: Conditions, trace: ReclaimTrace) -> Run:
    with contextlib.ExitStack() as stack:
        cgroup = _enter_cgroup(stack, opened, conditions)
        probes = standard_probes(opened.root, work.tree_files, work.seed) if conditions.probing else []
        stop = StopFlag()
        workers = _prepare_workers(stack, [Churn(opened.root, work), *probes], stop, cgroup)
        trace.clear()
        account = _DaemonAccount(opened)
        memory_before = cgroup.read() if cgroup else None
        workload, results = _race(workers, stop)
        memory = _memory_since(memory_before, cgroup.read()) if cgroup and memory_before else None
        reclaim = totals_by_name(trace.read(), {worker.pid: worker.name for worker in workers})
        drain = _drain(opened)
        return Run(
            pair=0,
            mode="",
            total_seconds=workload.seconds + drain.seconds + drain.sync_seconds,
            workload=workload,
            probes=results,
            drain=drain,
            stop_seconds=0.0,
            foreign_cpu_fraction=0.0,
            daemon=account.settle(),
            memory=memory,
            reclaim={} if trace.problem else reclaim,
        )


def _enter_cgroup(stack: contextlib.ExitStack, opened: Opened, conditions: Conditions) -> MemoryCgroup | None:
    hierarchy = conditions.hierarchy
    if hierarchy is None:
        return None
    name = f"deferfs-bench-{os.getpid()}"
    cgroup = stack.enter_context(MemoryCgroup(hierarchy, name, conditions.memory_limit_bytes))
    statistics = opened.statistics() if conditions.daemon_inside else None
    if statistics:
        pid = int(statistics["pid"])
        stack.callback(_leave, hierarchy, pid)  # the cgroup cannot be removed around the daemon
        cgroup.add(pid)
    return cgroup


def _prepare_workers(
    stack: contextlib.ExitStack, jobs: Sequence[Job], stop: StopFlag, cgroup: MemoryCgroup | None
) -> list[Worker]:
    workers = []
    for job in jobs:
        worker = Worker(job, stop)
        stack.callback(worker.close)
        workers.append(worker)
        if cgroup is not None:
            cgroup.add(worker.pid)
    # One after the other: the probes find the cgroup as full as the walk of the workload left it.
    for worker in workers:
        worker.join()
        worker.wait_ready()
    return workers


class _DaemonAccount:
    """What the daemon says before (now) and after (`settle`), with what the kernel says about its
    process.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._before = opened.statistics()
        self.pid = int(self._before["pid"]) if self._before else 0
        self._cpu_seconds = process_cpu_seconds(self.pid)

    def settle(self) -> Daemon | None:
        """The account since the making; None without a daemon to ask."""
        after = self._opened.statistics()
        if self._before is None or after is None:
            return None
        return Daemon(
            before=self._before,
            after=after,
            cpu_seconds=process_cpu_seconds(self.pid) - self._cpu_seconds,
            resident_bytes_max=process_memory_bytes(self.pid),
        )


def _race(workers: list[Worker], stop: StopFlag) -> tuple[WorkloadResult, dict[str, ProbeResult]]:
    """Start all at once; the probes end when the workload (the first of `workers`) has done its
    work.
    """
    for worker in workers:
        worker.go()
    workload = msgspec.convert(workers[0].result(RUN_SECONDS_MAX), WorkloadResult, strict=False)
    stop.raise_()
    results = {
        worker.name: msgspec.convert(worker.result(PROBE_SECONDS_MAX), ProbeResult, strict=False)
        for worker in workers[1:]
    }
    return workload, results


def _memory_since(before: MemoryReading, after: MemoryReading) -> Memory:
    return Memory(
        reading=after,
        limit_hits=after.limit_hits - before.limit_hits,
        pressure={
            kind: reading.since(before.pressure[kind])
            for kind, reading in after.pressure.items()
            if kind in before.pressure
        },
    )


def _backlog(statistics: Statistics | None) -> tuple[int, int]:
    """Inodes that wait for their inactivation or are in it, and the bytes that it will free."""
    if statistics is None:
        return 0, 0
    waiting = int(statistics["gc"]["queued"]) + int(statistics["inodes"]["inactivating"])
    return waiting, int(statistics["gc"]["pending_bytes"])


def _drain(opened: Opened) -> Drain:
    """Wait until nothing is left to inactivate, then until everything is on the disk."""
    start = time.monotonic()
    queued, pending_bytes = left, _ = _backlog(opened.statistics())
    while left and time.monotonic() - start < DRAIN_SECONDS_MAX:
        time.sleep(DRAIN_POLL_SECONDS)
        left, _ = _backlog(opened.statistics())
    drained = time.monotonic()
    _sync(opened.root)
    return Drain(
        queued=queued,
        pending_bytes=pending_bytes,
        seconds=drained - start if queued else 0.0,
        sync_seconds=time.monotonic() - drained,
        complete=not left,
    )


def _sync(root: Path) -> None:
    """Make everything durable. fsync of the root directory reaches a FUSE daemon; sync(2) does
    not.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)  # dirty pages reach the filesystem
        os.fsync(descriptor)  # and what it made of them reaches the disk
    finally:
        os.close(descriptor)


def _leave(hierarchy: Hierarchy, pid: int) -> None:
    """Move process `pid` to the top of its hierarchies."""
    for directory in {hierarchy.memory, hierarchy.pressure or hierarchy.memory}:
        (directory / "cgroup.procs").write_text(str(pid))
