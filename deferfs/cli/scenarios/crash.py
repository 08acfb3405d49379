"""How many distinct crash states one core judges in a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from deferfs.crash.ace import WORKLOADS
from deferfs.crash.campaign import numbered, run_campaign
from deferfs.crash.exploration import RANDOM, Task
from deferfs.errors import DeferfsError
from deferfs.measure.scenario import Pass, Side, Surroundings
from deferfs.measure.simple import SimpleScenario, value_pass

TARGET_PER_SECOND: Final = 2000
"""Distinct crash states that one core has to judge in a second of processor time."""


class Parameters(msgspec.Struct, frozen=True):
    """Random `runs`, from seed 0 on; then all sequences of one operation."""

    runs: int = 20


def rate(workload: str, runs: int) -> tuple[dict[str, float], str, bool]:
    """Explore serially, in this process. Processor time counts, so that other programs do not change the rate. Returns
    counters, a line of text, and whether it was fast enough."""
    start = time.process_time()
    summary = run_campaign(numbered(Task(0, workload=workload), runs))
    seconds = time.process_time() - start
    if summary.finding is not None:
        raise DeferfsError(f"{workload}: run {summary.next_seed - 1} fails: {summary.finding.reason}")
    tally = summary.tally
    per_second = tally.states / seconds
    counters = {
        f"{workload}_states_total": float(tally.states),
        f"{workload}_states_in_recoveries_total": float(tally.within),
        f"{workload}_recoveries_total": float(tally.recoveries),
        f"{workload}_examinations_total": float(tally.examined),
        f"{workload}_judged_twice_total": float(tally.sampled),
        f"{workload}_processor_seconds": seconds,
    }
    verdict = "at least" if per_second >= TARGET_PER_SECOND else "BELOW"
    line = (
        f"{workload}: {tally.states:,} distinct states ({tally.within:,} in recoveries) in {seconds:.1f} processor "
        f"seconds: {per_second:,.0f} a second, {verdict} the {TARGET_PER_SECOND:,} wanted"
    )
    return counters, line, per_second >= TARGET_PER_SECOND


def measure(side: Side, parameters: Parameters, surroundings: Surroundings, number: int) -> Pass:
    """Random runs, and all sequences of one operation."""
    start = time.monotonic()
    counters: dict[str, float] = {}
    lines, broken = [], []
    for workload, runs in ((RANDOM, parameters.runs), ("seq-1", WORKLOADS["seq-1"].count)):
        surroundings.tell(workload)
        found, line, fast = rate(workload, runs)
        counters |= found
        lines.append(line)
        broken += [] if fast else [line]
    return value_pass(side, time.monotonic() - start, counters, notes=lines, broken=broken)


def tell(passes: Sequence[Pass], parameters: Parameters) -> list[str]:
    """The rates as lines of text."""
    return [line for one in passes for line in one.notes]


SCENARIO = SimpleScenario(
    name="crash",
    mechanism="The rate at which one core judges the states that a crash may leave.",
    parameters=Parameters,
    work=measure,
    lacking=lambda side, parameters: "",
    tell=tell,
)
