"""Several loads at once, optionally inside a memory cgroup: started together, watched, and collected."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from deferfs.measure.host.cgroup import MemoryCgroup
from deferfs.measure.scenario import Outcome, Series
from deferfs.measure.work.paced import Measured
from deferfs.measure.work.processes import Job, StopFlag, Worker, WorkerError

WATCH_SECONDS: Final = 0.25
STOP_SECONDS_MAX: Final = 300.0
"""A load that is told to stop ends after its current operation."""


class Raced(msgspec.Struct, frozen=True):
    """The results of the loads. `seconds`: from the start to the end of the last main load."""

    outcome: Outcome
    seconds: float
    series: dict[str, Series]


class Loads:
    """Loads that are ready to start. `main` end by themselves; then those `beside` them are stopped."""

    def __init__(self, main: Sequence[Worker], beside: Sequence[Worker], stop: StopFlag, cgroup: MemoryCgroup | None):
        self._main = main
        self._beside = beside
        self._stop = stop
        self._cgroup = cgroup

    @property
    def names(self) -> dict[int, str]:
        """The processes of all loads: pid -> name."""
        return {worker.pid: worker.name for worker in (*self._main, *self._beside)}

    def run(self, seconds_max: float, watch: Callable[[], object]) -> Raced:
        """Start all at once and wait for them; `watch` is called every WATCH_SECONDS. After `seconds_max` the loads
        are stopped and the pass counts as unfinished. WorkerError when one fails for another reason than an OOM kill.
        """
        start = time.monotonic()
        for worker in (*self._main, *self._beside):
            worker.go()
        outcome: Outcome = "finished"
        for worker in self._main:
            while not worker.has_answer(WATCH_SECONDS):
                watch()
                if time.monotonic() - start > seconds_max:
                    self._stop.raise_()
                    outcome = "unfinished"
                    worker.has_answer(STOP_SECONDS_MAX)
        seconds = time.monotonic() - start
        self._stop.raise_()
        series: dict[str, Series] = {}
        for worker in (*self._main, *self._beside):
            try:
                answer = worker.result(STOP_SECONDS_MAX)
            except WorkerError:
                if self._cgroup is None or not self._cgroup.read().oom_kills:
                    raise
                outcome = "oom-killed"
            else:
                series.update(msgspec.convert(answer, Measured, strict=False).series)
        return Raced(outcome, seconds, series)


@contextlib.contextmanager
def ready(
    main: Sequence[Job], beside: Sequence[Job], own: Callable[[int], None], cgroup: MemoryCgroup | None = None
) -> Iterator[Loads]:
    """The processes of the loads, each of which answers with a `Measured`; prepared, in `cgroup`. They have ended after
    the block.
    """
    stop = StopFlag()
    with contextlib.ExitStack() as stack:
        workers = []
        for load in (*main, *beside):
            worker = Worker(load, stop)
            stack.callback(worker.close)
            workers.append(worker)
            own(worker.pid)
            if cgroup is not None:
                cgroup.add(worker.pid)
        for worker in workers:  # sequentially: later ones find what the first has cached
            worker.join()
            worker.wait_ready()
        yield Loads(workers[: len(main)], workers[len(main) :], stop, cgroup)
