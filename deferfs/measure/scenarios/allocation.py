"""`allocation`: which process waits for evict when the kernel reclaims dentries, on ext4, XFS, btrfs and deferfs.

A process in a memory cgroup walks files through overlayfs, whose dentries then hold the last references to the files of
the lower layer. Their names are deleted there, so that each inode is cleaned up when its overlay dentry is reclaimed.
Then the process touches fresh memory, a chunk at a time, at a limit a little above its usage: a charge that fails
reclaims dentries at once, and where evict is inline, the allocation waits for the cleanup of all of them.

This is the case of Dave Chinner's mail to linux-fsdevel of 27 Mar 2025 ("Filesystem reclaim & memory allocation BOF").
In the variant `linked` nothing is deleted: evict has to free space preallocated past EOF and to write lazy times.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deferfs.errors import DeferfsError, EnvironmentProblem
from deferfs.measure.host.belongings import Belongings
from deferfs.measure.host.cgroup import MemoryCgroup, MemoryReading, find_hierarchy
from deferfs.measure.host.kernel_log import KernelLog, kernel_memory_when_killed
from deferfs.measure.host.stacks import StackSampler
from deferfs.measure.host.tracing import CLEANUP, RECLAIM, EventTrace, count_events, parse_reclaims, totals_by_name
from deferfs.measure.mounts.filesystems import knows, overlaid
from deferfs.measure.mounts.stage import SIDES, Mounted, Stage, filesystem_of, missing, prepared_stage, slab_objects
from deferfs.measure.report import allocation_words
from deferfs.measure.scenario import Loop, Measure, Outcome, Pass, Prepared, Series, Side, Surroundings, Wait
from deferfs.measure.slow_disk.counters import work_between
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.allocation_job import MIB, Allocation, Parameters, owe_by_unlinking
from deferfs.measure.work.processes import StopFlag, Worker, WorkerError
from deferfs.measure.work.scattered import data_bytes, make_scattered
from deferfs.measure.work.shared_samples import SharedSamples

SPARE_BYTES: Final = 192 * MIB
"""Space in the images beside the data: metadata, journals."""
SERIES: Final = "allocation"
STALLS_KEPT: Final = 1
ATTEMPTS_MAX: Final = 5
HELD_PER_INODE_BYTES_MIN: Final = 1000
BYTES_PER_INODE: Final = 2000
"""Memory charged for a walked file: two dentries of 192 bytes, an overlay inode of 704, and one of 900 to 1,128 in the
lower layer (Linux 6.18, /proc/slabinfo).
"""
SETTLE_PAUSE_SECONDS: Final = 0.1
SETTLE_POLLS: Final = 10
KILL: Final = " mark_victim: "
LAZY_TIMES: Final = ("ext4", "xfs", "btrfs")
"""deferfs needs no option to keep times in memory."""


SWEPT_INODES: Final = (100, 300, 1000, 3000, 10_000, 30_000)
CHUNK_BYTES_MIN: Final = 16 << 10
CHUNKS_HELD_MIN: Final = 32
SWEPT_DISKS: Final = ("none", *(f"read={ms},write={ms},flush={ms}" for ms in (1, 5, 20)))
SWEPT_PRESSURES: Final = (0.25, 0.5, 0.75)
"""Fractions of the memory charged by the walk that have to be reclaimed."""


class _NotHeldError(Exception):
    """The dentries of the overlay do not hold the files any more."""


class _Process(NamedTuple):
    worker: Worker
    samples: SharedSamples


class _Prepared:
    """Passes over the images of a stage."""

    def __init__(self, stage: Stage, parameters: Parameters) -> None:
        self._stage = stage
        self._surroundings = stage.surroundings
        self._parameters = parameters
        self._name = f"deferfs-allocation-{os.getpid()}"

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass; see `Prepared`. Repeated when the dentries were reclaimed before the measurement."""
        for _ in range(ATTEMPTS_MAX):
            with contextlib.suppress(_NotHeldError):
                return self._perform(side, loop)
            self._surroundings.tell(f"{side.words}: another process has dropped the kernel's caches; again")
        raise DeferfsError(f"the kernel's caches were dropped in each of {ATTEMPTS_MAX} passes; stop what does that")

    def _perform(self, side: Side, loop: Loop) -> Pass:
        wanted = self._parameters
        options = ["lazytime"] if wanted.variant == "linked" and side.name in LAZY_TIMES else []
        hierarchy = self._surroundings.hierarchy
        assert hierarchy is not None, "missing() says so"
        with Belongings() as belongings:
            mounted = belongings.acquire(self._stage.mounted(side, options))
            merged = mounted.mounts.acquire(overlaid(mounted.root, self._stage.empty, self._stage.merged))
            trace = belongings.acquire(EventTrace(self._name, (*RECLAIM, *CLEANUP)))
            cgroup = belongings.acquire(MemoryCgroup(hierarchy, self._name, None))
            samples = SharedSamples(wanted.total_bytes // wanted.chunk_bytes)
            job = Allocation(wanted, mounted.root, merged, samples, makes_files=side.role == "floor")
            worker = Worker(job, StopFlag())
            belongings.callback(worker.close)
            belongings.callback(mounted.set_preset, "none")  # a task in evict is not killed before evict has ended
            self._surroundings.own(worker.pid)
            cgroup.add(worker.pid)
            worker.join()
            worker.wait_ready()
            if wanted.variant == "unlink":
                owe_by_unlinking(mounted.root, wanted.inodes)
            if not _held(cgroup.read(), wanted.inodes):
                raise _NotHeldError
            return self._measure(side, loop, mounted, cgroup, _Process(worker, samples), trace)

    def _measure(
        self, side: Side, loop: Loop, mounted: Mounted, cgroup: MemoryCgroup, process: _Process, trace: EventTrace
    ) -> Pass:
        wanted, samples, worker = self._parameters, process.samples, process.worker
        gauges = {"lower_inodes": filesystem_of(side).cache, "overlay_inodes": "ovl_inode"}
        counters = {f"{name}_before_total": float(slab_objects(cache)) for name, cache in gauges.items()}
        before, disk_before = cgroup.read(), mounted.disk_counters()
        mounted.set_preset(self._surroundings.disk)
        trace.clear()
        with KernelLog() as log, StackSampler(worker.pid, samples) as sampler:
            self._surroundings.own(sampler.pid)
            cgroup.set_limit(before.usage_bytes + wanted.headroom_bytes)
            start = time.monotonic()
            worker.go()
            outcome = self._wait(worker, cgroup)
            latencies = samples.ended() + [ns for ns in [samples.waiting()] if ns]
            touching = counters["touching_seconds"] = time.monotonic() - start
            after, disk_after, said = cgroup.read(), mounted.disk_counters(), log.text()
        counters |= {f"{name}_after_total": float(slab_objects(cache)) for name, cache in gauges.items()}
        lines = trace.lines()
        if outcome == "oom-killed":
            counters["kernel_settled_bytes"] = _settled_kernel_bytes(cgroup)
        start = time.monotonic()
        worker.close()
        if loop == "closed":
            mounted.mounts.close()  # evicts the rest: all sides have then paid for all inodes
        seconds = touching + time.monotonic() - start
        counters |= work_between(disk_before, disk_after)
        counters |= _cgroup_counters(before, after)
        counters["kernel_when_killed_bytes"] = kernel_memory_when_killed(said, self._name)
        counters |= _event_counters(lines)
        reclaims = totals_by_name(parse_reclaims(lines), {worker.pid: "reclaim"})["reclaim"]
        return Pass(
            side=side.name,
            loop=loop,
            outcome=outcome,
            seconds=seconds,
            series={SERIES: Series(fold(latencies), wanted.total_bytes // wanted.chunk_bytes)},
            counters=counters,
            waits={"reclaim": Wait(reclaims.count, reclaims.total_ns, reclaims.max_ns)},
            stalls=sampler.stalls(SERIES, latencies, STALLS_KEPT),
            notes=[trace.problem] if trace.problem else [],
        )

    def _wait(self, worker: Worker, cgroup: MemoryCgroup) -> Outcome:
        """Wait until the measurement, or the process, has ended."""
        try:
            worker.result(self._parameters.seconds_max)
        except WorkerError:
            if cgroup.read().oom_kills:
                return "oom-killed"
            if worker.alive():
                return "unfinished"
            raise
        return "finished"


def _settled_kernel_bytes(cgroup: MemoryCgroup) -> int:
    """Kernel memory charged once it has stopped falling, or after a second: objects that only waited for an RCU grace
    period are freed by then.
    """
    least = cgroup.read().kernel_bytes
    for _ in range(SETTLE_POLLS):
        time.sleep(SETTLE_PAUSE_SECONDS)
        now = cgroup.read().kernel_bytes
        if now >= least:
            break
        least = now
    return least


def _held(reading: MemoryReading, inodes: int) -> bool:
    """Whether the cgroup is still charged for the objects of the walk; True where kernel memory is not accounted."""
    return not reading.kernel_bytes or reading.kernel_bytes >= inodes * HELD_PER_INODE_BYTES_MIN


def _event_counters(lines: Sequence[str]) -> dict[str, float]:
    """Number of each trace event, and of those before the kill, if there was one."""
    counters = {f"{event}_total": float(count) for event, count in count_events(lines).items()}
    kill = next((at for at, line in enumerate(lines) if KILL in line), None)
    if kill is not None:
        earlier = count_events(lines[:kill])
        counters |= {f"{event}_until_kill_total": float(count) for event, count in earlier.items()}
    return counters


def _cgroup_counters(before: MemoryReading, after: MemoryReading) -> dict[str, float]:
    return {
        "usage_before_bytes": before.usage_bytes,
        "kernel_before_bytes": before.kernel_bytes,
        "kernel_after_bytes": after.kernel_bytes,
        "limit_hits_total": after.limit_hits - before.limit_hits,
        "oom_kills_total": after.oom_kills - before.oom_kills,
    }


class _Allocation:
    """See the module."""

    name = "allocation"
    mechanism = (
        "A process in a memory cgroup allocates; the kernel reclaims overlay dentries inside of the allocation, which "
        "drops the last references to deleted files; where evict is inline, the allocation waits for their cleanup."
    )
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = (
        Measure("allocation", "max", "the longest single allocation", "closed"),
        Measure("seconds", "value", "all allocations, until nothing is owed", "closed"),
    )
    loops: tuple[Loop, ...] = ("closed",)
    pairs = 3
    warm_up = False
    """Its preparation has just mounted and filled each filesystem."""
    swept_disks = SWEPT_DISKS

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Number of inodes, pressure, and the linked variant."""
        points = []
        for inodes in SWEPT_INODES:
            for part in SWEPT_PRESSURES if parameters.variant == "unlink" else SWEPT_PRESSURES[:1]:
                held = parameters.headroom_bytes + int(part * inodes * BYTES_PER_INODE)
                chunk = min(parameters.chunk_bytes, max(CHUNK_BYTES_MIN, held // CHUNKS_HELD_MIN // 4096 * 4096))
                changes = {"inodes": inodes, "held_bytes": held, "chunk_bytes": chunk, "total_bytes": 4 * held}
                points.append(msgspec.structs.replace(parameters, **changes))
        return [*points, msgspec.structs.replace(parameters, variant="linked")]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """All filesystems."""
        return SIDES

    def missing(self, side: Side, parameters: Parameters) -> str:
        """What this machine lacks for `side`, in one line."""
        if lack := missing(side):
            return lack
        if not knows("overlay"):
            return "this kernel has no overlayfs"
        return "" if find_hierarchy() else "no memory cgroup can be made here"

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """Make an image for each filesystem."""
        if surroundings.hierarchy is None:
            raise EnvironmentProblem("allocation needs a memory cgroup, and none can be made here; run as root")
        size = SPARE_BYTES + 2 * data_bytes(parameters.inodes, parameters.extents)

        def fill(root: Path) -> None:
            make_scattered(root, parameters.inodes, parameters.extents, parameters.scattered_every)

        with prepared_stage(surroundings, size, fill, SIDES) as stage:
            yield _Prepared(stage, parameters)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """The longest wait of each side, where it stood, and what the killed ones lacked."""
        return allocation_words.sentences(passes, SIDES, SERIES)


SCENARIO = _Allocation()
