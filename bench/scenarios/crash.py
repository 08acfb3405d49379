"""How many distinct crash states one core judges in a second."""

from __future__ import annotations

import time
from typing import Final

import click
import msgspec

from bench.main import RESULTS, run_scenario
from deferfs.crash.ace import WORKLOADS
from deferfs.crash.campaign import numbered, run_campaign
from deferfs.crash.exploration import RANDOM, Task
from deferfs.errors import DeferfsError
from deferfs.measure.machine import describe_machine
from deferfs.measure.results import Machine

TARGET_PER_SECOND: Final = 2000


class Rate(msgspec.Struct, frozen=True):
    """One workload: distinct crash states, and the processor seconds they took, runs and recoveries included."""

    workload: str
    runs: int
    states: int
    states_within_recoveries: int
    recoveries: int
    examinations: int
    judged_twice: int
    processor_seconds: float

    @property
    def per_second(self) -> float:
        return self.states / self.processor_seconds


class Crash(msgspec.Struct, frozen=True):
    machine: Machine
    rates: list[Rate]


def measure(workload: str, runs: int) -> Rate:
    """Serially, in this process. The processor's time counts, so that what else the machine does is left out."""
    start = time.process_time()
    summary = run_campaign(numbered(Task(0, workload=workload), runs))
    seconds = time.process_time() - start
    if summary.finding is not None:
        raise DeferfsError(f"{workload}: run {summary.next_seed - 1} fails: {summary.finding.reason}")
    tally = summary.tally
    return Rate(
        workload,
        summary.tasks,
        tally.states,
        tally.within,
        tally.recoveries,
        tally.examined,
        tally.sampled,
        seconds,
    )


@click.command()
@click.option("--runs", type=click.IntRange(1), default=20, show_default=True, help="Random runs, from seed 0 on.")
def command(runs: int) -> None:
    """Measure random runs and all sequences of one operation."""
    rates = [measure(RANDOM, runs), measure("seq-1", WORKLOADS["seq-1"].count)]
    (RESULTS / "crash.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(Crash(describe_machine(RESULTS), rates)))
    )
    for rate in rates:
        verdict = "at least" if rate.per_second >= TARGET_PER_SECOND else "BELOW"
        click.echo(
            f"{rate.workload}: {rate.states:,} distinct states ({rate.states_within_recoveries:,} in recoveries) in "
            f"{rate.processor_seconds:.1f} processor seconds: {rate.per_second:,.0f} a second, {verdict} "
            f"the {TARGET_PER_SECOND:,} wanted; {rate.recoveries:,} recoveries, {rate.examinations:,} examinations"
        )


if __name__ == "__main__":
    run_scenario(command)
