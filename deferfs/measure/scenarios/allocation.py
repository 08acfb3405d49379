"""`allocation`: who waits for evict when the kernel reclaims dentries, on ext4, XFS, btrfs and deferfs.

A process in a memory cgroup walks files through overlayfs, whose dentries then hold the last references to the files of
the layer below. Their names are deleted there, so that each inode is cleaned up when its overlay dentry goes. Then the
process touches fresh memory, a chunk at a time, at a limit a little above what it uses: a charge that fails reclaims
dentries on the spot, and where evict is inline, the allocation waits for the cleanup of all of them.

This is the case of Dave Chinner's mail to linux-fsdevel of 27 Mar 2025 ("Filesystem reclaim & memory allocation BOF").
In the variant `linked` nothing is deleted: what evict owes is preallocated space past the end of file and times that
were kept in memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec

from deferfs.errors import DeferfsError
from deferfs.measure.belongings import Belongings
from deferfs.measure.cgroup import MemoryCgroup, MemoryReading
from deferfs.measure.filesystems import knows, overlaid
from deferfs.measure.histogram import fold
from deferfs.measure.processes import StopFlag, Worker, WorkerError
from deferfs.measure.scattered import data_bytes, make_scattered, scattered_paths
from deferfs.measure.scenario import Loop, Measure, Outcome, Pass, Prepared, Series, Side, Surroundings, Wait
from deferfs.measure.scenarios.allocation_job import Allocation, owe_by_unlinking
from deferfs.measure.shared_samples import SharedSamples
from deferfs.measure.stacks import StackSampler
from deferfs.measure.stage import SIDES, Mounted, Stage, filesystem_of, missing, prepared_stage, slab_objects
from deferfs.measure.tracing import CLEANUP, RECLAIM, EventTrace, count_events, parse_reclaims, totals_by_name

MIB: Final = 1 << 20
SPARE_BYTES: Final = 192 * MIB
"""Room in the images beside the data: metadata, journals."""
STALLS_KEPT: Final = 1
LAZY_TIMES: Final = ("ext4", "xfs", "btrfs")
"""deferfs keeps times in memory by itself."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """`headroom_bytes` above the usage is the limit; `held_bytes` of the touched memory are kept, the oldest chunk is
    given back when there are more, so that held - headroom has to be reclaimed. `seconds_max` ends a pass.
    """

    inodes: int = 6000
    extents: int = 8
    scattered_every: int = 6
    headroom_bytes: int = 1 * MIB
    held_bytes: int = 4 * MIB
    chunk_bytes: int = 256 << 10
    total_bytes: int = 16 * MIB
    variant: Literal["unlink", "linked"] = "unlink"
    seconds_max: float = 60.0


class _Prepared:
    def __init__(self, stage: Stage, parameters: Parameters) -> None:
        self._stage = stage
        self._surroundings = stage.surroundings
        self._parameters = parameters

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass; see `Prepared`."""
        wanted = self._parameters
        options = ["lazytime"] if wanted.variant == "linked" and side.name in LAZY_TIMES else []
        hierarchy = self._surroundings.hierarchy
        assert hierarchy is not None, "missing() says so"
        name = self._surroundings.scratch.name
        with Belongings() as belongings:
            mounted = belongings.acquire(self._stage.mounted(side, options))
            merged = mounted.mounts.acquire(overlaid(mounted.root, self._stage.empty, self._stage.merged))
            trace = belongings.acquire(EventTrace(name, (*RECLAIM, *CLEANUP)))
            cgroup = belongings.acquire(MemoryCgroup(hierarchy, name, None))
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
            return self._measure(side, loop, mounted, cgroup, worker, samples, trace)

    def _measure(
        self,
        side: Side,
        loop: Loop,
        mounted: Mounted,
        cgroup: MemoryCgroup,
        worker: Worker,
        samples: SharedSamples,
        trace: EventTrace,
    ) -> Pass:
        wanted = self._parameters
        cache = filesystem_of(side).cache
        counters = {"lower_inodes_before_total": float(slab_objects(cache))}
        counters["overlay_inodes_before_total"] = float(slab_objects("ovl_inode"))
        disk_before = mounted.disk_counters()
        mounted.set_preset(self._surroundings.disk)
        before = cgroup.read()
        trace.clear()
        cgroup.set_limit(before.usage_bytes + wanted.headroom_bytes)
        with StackSampler(worker.pid, samples) as sampler:
            self._surroundings.own(sampler.pid)
            start = time.monotonic()
            worker.go()
            outcome = self._wait(worker, cgroup)
            unfinished_ns = samples.waiting()
        after = cgroup.read()
        counters["lower_inodes_after_total"] = float(slab_objects(cache))
        counters["overlay_inodes_after_total"] = float(slab_objects("ovl_inode"))
        lines = trace.lines()
        disk_after = mounted.disk_counters()
        counters |= {name: disk_after[name] - disk_before.get(name, 0) for name in disk_after if "max" not in name}
        counters["touching_seconds"] = time.monotonic() - start
        worker.close()
        if loop == "closed":
            mounted.mounts.close()  # evicts the rest: all sides have then paid for all inodes
        seconds = time.monotonic() - start
        latencies = samples.ended()
        if unfinished_ns:
            latencies.append(unfinished_ns)
        reclaims = totals_by_name(parse_reclaims(lines), {worker.pid: "reclaim"})["reclaim"]
        events = count_events(lines)
        counters |= {f"{event}_total": float(count) for event, count in events.items()}
        counters |= _cgroup_counters(before, after)
        return Pass(
            side=side.name,
            loop=loop,
            outcome=outcome,
            seconds=seconds,
            series={"allocation": Series(fold(latencies), wanted.total_bytes // wanted.chunk_bytes)},
            counters=counters,
            waits={"reclaim": Wait(reclaims.count, reclaims.total_ns, reclaims.max_ns)},
            stalls=sampler.stalls("allocation", latencies, STALLS_KEPT),
            notes=[trace.problem] if trace.problem else [],
        )

    def _wait(self, worker: Worker, cgroup: MemoryCgroup) -> Outcome:
        """Until the touching has come to an end, or the process to its own."""
        try:
            worker.result(self._parameters.seconds_max)
        except WorkerError:
            if cgroup.read().oom_kills:
                return "oom-killed"
            if worker.alive():
                return "unfinished"
            raise
        return "finished"


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
    parameters = Parameters
    measures = (
        Measure("allocation", "max", "the longest single allocation", "closed"),
        Measure("seconds", "value", "all allocations, until nothing is owed", "closed"),
    )
    loops: tuple[Loop, ...] = ("closed",)
    pairs = 2

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Number of inodes, pressure, and the linked variant."""
        return [parameters]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """All filesystems."""
        return SIDES

    def missing(self, side: Side, parameters: Parameters) -> str:
        """What this machine lacks for `side`, in one line."""
        return missing(side) or ("" if knows("overlay") else "this kernel has no overlayfs")

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """Make an image for each filesystem."""
        if surroundings.hierarchy is None:
            raise DeferfsError("allocation needs a memory cgroup, and none can be made here; run as root")
        size = SPARE_BYTES + 2 * data_bytes(parameters.inodes, parameters.extents)

        def fill(root: Any) -> None:
            make_scattered(root, parameters.inodes, parameters.extents, parameters.scattered_every)

        with prepared_stage(surroundings, size, fill, SIDES) as stage:
            yield _Prepared(stage, parameters)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        return []


SCENARIO = _Allocation()
