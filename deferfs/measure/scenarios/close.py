"""`close`: how long unlink(2) and close(2) of files with many extents block the calling process.

close(2) drops the last reference to a deleted file. Where evict is inline in the kernel, the closing process frees all
extents, in as many transactions as needed; XFS queues the inode for inodegc; a FUSE daemon receives RELEASE and FORGET,
for which no process waits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.host.belongings import Belongings
from deferfs.measure.host.stacks import StackSampler
from deferfs.measure.mounts.stage import SIDES, Mounted, Stage, missing, prepared_stage
from deferfs.measure.report.wording import latency
from deferfs.measure.scenario import Loop, Measure, Outcome, Pass, Prepared, Series, Side, Surroundings
from deferfs.measure.slow_disk.counters import work_between
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.processes import StopFlag, Worker, WorkerError
from deferfs.measure.work.scattered import data_bytes, make_file
from deferfs.measure.work.shared_samples import SharedSamples

MIB: Final = 1 << 20
SPARE_BYTES: Final = 192 * MIB
OPERATIONS: Final = ("unlink", "close")


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """`files` files of each number of `extents`. `seconds_max`: time limit of a pass; the current wait then counts with
    its length so far.
    """

    extents: tuple[int, ...] = (10, 1000, 10_000)
    files: int = 3
    seconds_max: float = 120.0


class Done(msgspec.Struct):
    """The answer; the measurements are in the shared samples."""


def series_name(operation: str, extents: int) -> str:
    """`close, 1000 extents`: the series of one operation on files of one number of extents."""
    return f"{operation}, {extents} extents"


def paths(root: Path | str, parameters: Parameters) -> dict[int, list[str]]:
    """The files of each number of extents."""
    return {
        extents: [f"{root}/{extents}-{number}" for number in range(parameters.files)] for extents in parameters.extents
    }


class _Job:
    """Opens all files, then unlinks and closes one after the other. Samples: an unlink, a close, an unlink, ..."""

    name = "close"

    def __init__(self, root: Path, parameters: Parameters, samples: SharedSamples) -> None:
        self._paths = [path for files in paths(root, parameters).values() for path in files]
        self._samples = samples
        self._open: dict[str, int] = {}

    def prepare(self) -> None:
        """Open the files."""
        self._samples.touch()
        self._open = {path: os.open(path, os.O_RDONLY) for path in self._paths}

    def measure(self, stop: StopFlag) -> Done:
        """Delete them."""
        samples = self._samples
        for path in self._paths:
            start = time.monotonic_ns()
            samples.begin(start)
            os.unlink(path)
            samples.end(time.monotonic_ns() - start)
            start = time.monotonic_ns()
            samples.begin(start)
            os.close(self._open[path])
            samples.end(time.monotonic_ns() - start)
        return Done()


def sort_samples(latencies: Sequence[int], parameters: Parameters) -> dict[str, Series]:
    """The samples of a job by operation and number of extents, however many there are."""
    sorted_out: dict[str, list[int]] = {
        series_name(operation, extents): [] for extents in parameters.extents for operation in OPERATIONS
    }
    per_extents = parameters.files * len(OPERATIONS)
    for at, nanoseconds in enumerate(latencies):
        extents = parameters.extents[at // per_extents]
        sorted_out[series_name(OPERATIONS[at % len(OPERATIONS)], extents)].append(nanoseconds)
    return {name: Series(fold(values), parameters.files) for name, values in sorted_out.items()}


class _Prepared:
    """Passes over the images of a stage."""

    def __init__(self, stage: Stage, parameters: Parameters) -> None:
        self._stage = stage
        self._surroundings = stage.surroundings
        self._parameters = parameters

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass; see `Prepared`."""
        wanted = self._parameters
        with Belongings() as belongings:
            mounted = belongings.acquire(self._stage.mounted(side))
            if side.role == "floor":
                fill(mounted.root, wanted, 0)
            samples = SharedSamples(len(OPERATIONS) * wanted.files * len(wanted.extents))
            worker = Worker(_Job(mounted.root, wanted, samples), StopFlag())
            belongings.callback(worker.close)
            belongings.callback(mounted.set_preset, "none")  # a task in evict is not killed before evict has ended
            self._surroundings.own(worker.pid)
            worker.join()
            worker.wait_ready()
            return self._measure(side, loop, mounted, worker, samples)

    def _measure(self, side: Side, loop: Loop, mounted: Mounted, worker: Worker, samples: SharedSamples) -> Pass:
        outcome: Outcome = "finished"
        before = mounted.disk_counters()
        mounted.set_preset(self._surroundings.disk)
        with StackSampler(worker.pid, samples) as sampler:
            self._surroundings.own(sampler.pid)
            start = time.monotonic()
            worker.go()
            try:
                worker.result(self._parameters.seconds_max)
            except WorkerError:
                if not worker.alive():
                    raise
                outcome = "unfinished"
            latencies = samples.ended() + [ns for ns in [samples.waiting()] if ns]
        if outcome == "finished":
            mounted.mounts.close()  # deferred cleanups are finished here
        seconds = time.monotonic() - start
        after = mounted.disk_counters()
        return Pass(
            side=side.name,
            loop=loop,
            outcome=outcome,
            seconds=seconds,
            series=sort_samples(latencies, self._parameters),
            counters=work_between(before, after),
            stalls=sampler.stalls("close", latencies),
        )


def fill(root: Path, parameters: Parameters, most: int | None = None) -> None:
    """Make the files, of `most` extents at most."""
    for extents, files in paths(root, parameters).items():
        for path in files:
            make_file(path, extents if most is None else min(extents, most))


class _Close:
    """See the module."""

    name = "close"
    mechanism = (
        "A process deletes an open file of many extents and closes it; where evict is inline in the kernel, close(2) "
        "waits until all extents are free."
    )
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = (
        Measure(series_name("close", 10_000), "max", "the longest close of a deleted file of 10,000 extents", "closed"),
        Measure(series_name("close", 10), "max", "the longest close of a deleted file of 10 extents", "closed"),
        Measure("seconds", "value", "all deletions, until nothing is owed", "closed"),
    )
    loops: tuple[Loop, ...] = ("closed",)
    pairs = 2

    def sweep(self, parameters: Parameters) -> Sequence[Parameters]:
        """Up to 100,000 extents."""
        return [msgspec.structs.replace(parameters, extents=(10, 100, 1000, 10_000, 100_000))]

    def sides(self, parameters: Parameters) -> Sequence[Side]:
        """All filesystems."""
        return SIDES

    def missing(self, side: Side, parameters: Parameters) -> str:
        """What this machine lacks for `side`, in one line."""
        return missing(side)

    @contextlib.contextmanager
    def prepared(self, parameters: Parameters, surroundings: Surroundings) -> Iterator[Prepared]:
        """Make an image for each filesystem."""
        data = sum(data_bytes(parameters.files, extents) for extents in parameters.extents)
        with prepared_stage(surroundings, SPARE_BYTES + 2 * data, lambda root: fill(root, parameters), SIDES) as stage:
            yield _Prepared(stage, parameters)

    def sentences(self, passes: Sequence[Pass], parameters: Parameters) -> list[str]:
        """The longest close of each number of extents, on each side."""
        told = []
        for extents in parameters.extents:
            name = series_name("close", extents)
            longest = {
                side: max((one.series[name].latency.max_ns for one in passes if one.side == side.name), default=0)
                for side in SIDES
            }
            words = ", ".join(f"{latency(ns)} on {side.words}" for side, ns in longest.items() if ns)
            if words:
                told.append(f"close(2) of a deleted file of {extents:,} extents took up to {words}.")
        return told


SCENARIO = _Close()
