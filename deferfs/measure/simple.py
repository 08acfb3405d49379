"""Scenarios whose passes share nothing, defined by one function: with a fresh filesystem for each pass, or without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from deferfs.measure.environment import missing_for_mounts
from deferfs.measure.scenario import Loop, Measure, Pass, Side, Surroundings

ONLY: tuple[Side, ...] = (Side("deferred", "deferfs", "deferred"),)
"""The sides of a scenario that compares nothing, but checks promises of deferfs."""


def missing_for_any(side: Side, parameters: Any) -> str:
    """What this machine lacks for any mount."""
    return missing_for_mounts()


@dataclass(frozen=True)
class SimpleScenario:
    """`work`: one pass of a side, in the empty directory `Surroundings.scratch`. `tell`: its sentences."""

    name: str
    mechanism: str
    parameters: type[msgspec.Struct]
    work: Callable[[Side, Any, Surroundings, int], Pass]
    side_list: tuple[Side, ...] = ONLY
    measures: tuple[Measure, ...] = ()
    pairs: int = 1
    lacking: Callable[[Side, Any], str] = missing_for_any
    tell: Callable[[Sequence[Pass], Any], list[str]] = lambda passes, parameters: []
    loops: tuple[Loop, ...] = ("closed",)
    warm_up: bool = False
    disk: str = ""

    def sweep(self, parameters: Any) -> Sequence[msgspec.Struct]:
        """There is one parameter set."""
        return [parameters]

    def sides(self, parameters: Any) -> Sequence[Side]:
        """All sides."""
        return self.side_list

    def missing(self, side: Side, parameters: Any) -> str:
        """What this machine lacks, in one line."""
        return self.lacking(side, parameters)

    @contextmanager
    def prepared(self, parameters: Any, surroundings: Surroundings) -> Iterator[_Work]:
        """No-op."""
        yield _Work(self, parameters, surroundings)

    def sentences(self, passes: Sequence[Pass], parameters: Any) -> list[str]:
        """The scenario's own sentences."""
        return self.tell(passes, parameters)


class _Work:
    def __init__(self, scenario: SimpleScenario, parameters: Any, surroundings: Surroundings) -> None:
        self._scenario, self._parameters, self._surroundings = scenario, parameters, surroundings
        self._number = 0

    def perform(self, side: Side, loop: Loop, number: int) -> Pass:
        """One pass."""
        self._number += 1
        scratch = self._surroundings.scratch / f"pass{self._number}"
        own = msgspec.structs.replace(self._surroundings, scratch=scratch)
        return self._scenario.work(side, self._parameters, own, number)


def value_pass(side: Side, seconds: float, counters: dict[str, float], **more: Any) -> Pass:
    """A pass that has values and no latencies."""
    return Pass(side.name, "closed", "finished", seconds, {}, counters, **more)
