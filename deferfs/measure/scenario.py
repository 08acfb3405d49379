"""The interface of a scenario, and the result of one pass.

A scenario isolates one mechanism. It names its *sides*, which do the same work on the same disk and differ in one
thing, and the *measures* by which sides are compared. One of the sides is the floor: the same work with nothing to
clean up. The harness (`deferfs.measure.harness`) chooses the order of the passes, discards the warm-up, watches the
machine, and compares; a scenario only prepares, and performs one pass at a time.

Scenarios are found by name: each module of `deferfs.measure.scenarios` has one constant, `SCENARIO`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from deferfs.contract.requests import Answer, Query
from deferfs.measure.host.cgroup import Hierarchy
from deferfs.measure.stats.histogram import Histogram

Role = Literal["inline", "deferred", "floor", "kernel"]
"""The role of a side. The headline ratio is inline / deferred; every side may be compared with the floor. A `kernel`
side is another filesystem, shown beside them."""
Loop = Literal["closed", "open"]
"""`closed`: each operation starts when the one before has ended; the time of the whole pass counts, including all
cleanups. `open`: operations are due at fixed times; the latency of each counts, from when it was due."""
Outcome = Literal["finished", "oom-killed", "unfinished"]
"""How a pass ended. An OOM kill of the workload is a result, not a failure of the run."""


class Ask(Protocol):
    """How a daemon is asked."""

    def __call__(self, root: Path, request: Query[Answer]) -> Answer:
        """The answer of the daemon behind the mountpoint `root`. DeferfsError when it refuses or does not answer."""


class Side(msgspec.Struct, frozen=True):
    """One side of a comparison. `words`: its name in sentences, "deferfs, inline"."""

    name: str
    words: str
    role: Role


class Measure(msgspec.Struct, frozen=True):
    """What is compared. `statistic` is a percentile label of `PERCENTILES` of the latencies in `series`, or `value`:
    the counter (or `seconds`) that `series` names. Less is always better. `words`: the operation or the value in
    sentences ("an operation that needed memory").
    """

    series: str
    statistic: str
    words: str
    loop: Loop = "open"


PERCENTILES: Final = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


class Series(msgspec.Struct, frozen=True):
    """The latencies of one kind of operation in one pass, in ns.

    `due`: operations that the pace asked for (in a closed loop: their number). `failed`: those that ended in an error,
    which are not among the latencies.
    """

    latency: Histogram
    due: int
    failed: int = 0


class Stall(msgspec.Struct, frozen=True):
    """One long wait, and where the task was: `stack` is its most frequent kernel stack (innermost first), `samples` the
    number of samples. Empty when stacks cannot be read.
    """

    series: str
    duration_ns: int
    stack: list[str]
    samples: int


class Wait(msgspec.Struct, frozen=True):
    """Waits of a pass for one cause: number, total and longest, in ns."""

    count: int
    total_ns: int
    max_ns: int = 0


class Pass(msgspec.Struct, frozen=True):
    """One pass of one side.

    `seconds`: the whole work, until nothing is owed. `counters`: named with their unit at the end (`_bytes`,
    `_seconds`, `_ns`, `_total`). `waits`: by cause. `broken`: promises that were not kept, one line each; the run then
    exits with 1. `foreign_cpu_fraction`: the fraction of all processors used by processes that do not belong to the
    pass; filled in by the harness, as is `pair`.
    """

    side: str
    loop: Loop
    outcome: Outcome
    seconds: float
    series: dict[str, Series]
    counters: dict[str, float] = {}
    waits: dict[str, Wait] = {}
    stalls: list[Stall] = []
    notes: list[str] = []
    broken: list[str] = []
    pair: int = 0
    foreign_cpu_fraction: float = 0.0


class Surroundings(msgspec.Struct, frozen=True):
    """The context that the harness provides to a scenario.

    `scratch`: an empty directory for images and mountpoints, removed afterwards. `disk`: the name of a preset of
    `deferfs.measure.slow_disk`. `hierarchy`: where memory cgroups can be made, or None. `tell`: prints one line of
    progress. `own`: reports a process that belongs to the pass (a daemon, a disk), so that its processor time does not
    count as foreign.
    """

    scratch: Path
    disk: str
    seed: int
    hierarchy: Hierarchy | None
    ask: Ask
    tell: Callable[[str], None]
    own: Callable[[int], None]


class Prepared(Protocol):
    """A scenario whose images have been made. Where they are still being made, by processes of their own, it has a
    method `finish_preparing()`, which waits for that; the harness calls it before the first pass of any scenario.
    """

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass of `side`, from the same state each time. `number` counts passes and may be a random seed, the same
        for all sides of a pair. The pass must remove everything it made, in any case.
        """


class Scenario(Protocol):
    """One mechanism, isolated.

    `parameters` is a msgspec struct whose defaults are those of a short run; `--set NAME=VALUE` changes a field. A
    field called `target` is set by `--target DIR`.

    A scenario may have three more attributes: `disk`, the slow disk that it needs (a preset, or key=value words; empty:
    none); `swept_disks`, those under which a `--full` run repeats the parameters of a short one; and `warm_up`, False
    when a discarded pass would cost more than it brings.
    """

    name: str
    mechanism: str
    """One sentence: what is waited for, and by which process."""
    parameters: type[msgspec.Struct]
    measures: tuple[Measure, ...]
    loops: tuple[Loop, ...]
    pairs: int
    """Pairs of a short run."""

    def sweep(self, parameters: Any) -> Sequence[msgspec.Struct]:
        """The parameter sets of a `--full` run."""

    def sides(self, parameters: Any) -> Sequence[Side]:
        """All sides, including those that this machine cannot run."""

    def missing(self, side: Side, parameters: Any) -> str:
        """One line that says what this machine lacks for `side`; empty when nothing. Must be quick: it is called before
        anything starts.
        """

    def prepared(self, parameters: Any, surroundings: Surroundings) -> AbstractContextManager[Prepared]:
        """Make the initial state of all passes, once; remove it at the end."""

    def sentences(self, passes: Sequence[Pass], parameters: Any) -> list[str]:
        """Results that no ratio expresses, one sentence each; may be empty."""
