"""A scenario that needs nothing of the machine, and reports of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from deferfs.contract.requests import Answer, Query
from deferfs.measure.harness import Conditions, Plan, run
from deferfs.measure.host.load import ForeignLoad, OwnProcesses
from deferfs.measure.results import Report
from deferfs.measure.scenario import Loop, Measure, Pass, Scenario, Series, Side, Stall, Surroundings, Wait
from deferfs.measure.stats.histogram import fold

MEASURES = (
    Measure("needs memory", "p50", "an operation that needed memory"),
    Measure("needs memory", "p99", "an operation that needed memory"),
    Measure("needs memory", "max", "an operation that needed memory"),
    Measure("seconds", "value", "the whole work", "closed"),
)
SIDES = (
    Side("inline", "deferfs, inline", "inline"),
    Side("deferred", "deferfs, deferred", "deferred"),
    Side("floor", "deferfs, noatime", "floor"),
    Side("ext4", "ext4", "kernel"),
)


class Parameters(msgspec.Struct, frozen=True):
    inodes: int = 100
    latency_ms: float = 2.0
    budgets: tuple[int, ...] = (8, 16)
    words: str = ""


@dataclass
class Fake:
    """`slower`: by how much a side takes longer; `samples` of each pass; `before`: called at the start of a pass."""

    name: str = "fake"
    mechanism: str = "Nothing waits for nothing."
    parameters: type[msgspec.Struct] = Parameters
    measures: tuple[Measure, ...] = MEASURES
    loops: tuple[Loop, ...] = ("closed", "open")
    pairs: int = 6
    slower: dict[str, float] = field(default_factory=lambda: {"inline": 3.0, "ext4": 50.0})
    samples: int = 1200
    lacking: dict[str, str] = field(default_factory=dict)
    before: Callable[[Side, Loop, int], None] = lambda side, loop, number: None
    killed: tuple[str, ...] = ()
    log: list[str] = field(default_factory=list)
    scratch: Path | None = None

    def sweep(self, parameters: Any) -> Sequence[msgspec.Struct]:
        return [msgspec.structs.replace(parameters, inodes=inodes) for inodes in (100, 1000)]

    def sides(self, parameters: Any) -> Sequence[Side]:
        return SIDES

    def missing(self, side: Side, parameters: Any) -> str:
        return self.lacking.get(side.name, "")

    @contextmanager
    def prepared(self, parameters: Any, surroundings: Surroundings) -> Iterator[Fake]:
        self.scratch = surroundings.scratch
        (surroundings.scratch / "image").touch()
        self.log.append("prepared")
        try:
            yield self
        finally:
            self.log.append("removed")

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        self.log.append(f"{loop} {number} {side.name}")
        self.before(side, loop, number)
        chance = random.Random(f"{side.name} {loop} {number}")
        scale = 1e6 * self.slower.get(side.name, 1.0)
        latency = fold(int(scale * chance.lognormvariate(0, 0.2)) for _ in range(self.samples))
        return Pass(
            side=side.name,
            loop=loop,
            outcome="oom-killed" if side.name in self.killed else "finished",
            seconds=scale * chance.lognormvariate(0, 0.05) / 1e6,
            series={"needs memory": Series(latency, self.samples)},
            counters={"resident_bytes": 1e6},
            waits={"log": Wait(3, int(scale), int(scale))},
            stalls=[Stall("needs memory", latency.max_ns, ["wait_for_log", "evict"], 7)],
        )

    def sentences(self, passes: Sequence[Pass], parameters: Any) -> list[str]:
        return [f"{len(passes)} passes of <nothing>"] if passes else []


class StillLoad(ForeignLoad):
    """A machine on which a stated part is used by others."""

    part = 0.0

    def __init__(self, own: OwnProcesses) -> None:
        """Nothing is read."""

    def fraction(self, elapsed: float | None = None) -> float:
        return self.part


class HeavyLoad(StillLoad):
    part = 0.4


def conditions(scratch: Path, **more: Any) -> Conditions:
    values: dict[str, Any] = {
        "scratch": scratch,
        "seed": 1,
        "hierarchy": None,
        "ask": lambda *_, **__: None,
        "tell": lambda _: None,
        "load": StillLoad,
    }
    return Conditions(**{**values, **more})


def report(scratch: Path, scenario: Scenario | None = None, pairs: int | None = None, **more: Any) -> Report:
    """The report of a fake scenario."""
    fake = scenario or Fake()
    return run([Plan(fake, fake.parameters(), pairs)], conditions(scratch, **more))


def without_daemons(scratch: Path, tell: Callable[[str], None] = lambda _: None) -> Surroundings:
    """Surroundings in which no daemon may be asked."""
    return Surroundings(scratch, "none", 0, None, _no_daemon, tell, lambda _: None)


def _no_daemon(root: Path, request: Query[Answer]) -> Answer:
    raise AssertionError(f"{root} has no daemon")
