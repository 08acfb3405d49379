"""The loads on a clock that only the operations and the sleeps move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deferfs.measure.scenario import Series
from deferfs.measure.work import paced
from deferfs.measure.work.paced import Load
from deferfs.measure.work.processes import StopFlag
from tests.unit.measure.clocks import MS, FakeTime


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(paced, "time", fake)
    return fake


def lasting(clock: FakeTime, *times: int, after: Callable[[], None] = lambda: None) -> Callable[[int], None]:
    """Operations of so many ms; `after` is called in the last one. A negative time: it fails after so long."""

    def operation(number: int) -> None:
        clock.now += abs(times[number]) * MS
        if number == len(times) - 1:
            after()
        if times[number] < 0:
            raise OSError("no")

    return operation


def measured(load: Load, stop: StopFlag | None = None) -> Series:
    load.prepare()
    return load.measure(StopFlag() if stop is None else stop).series[load.name]


def test_a_closed_load_begins_when_the_one_before_has_ended(clock: FakeTime) -> None:
    series = measured(Load("x", lasting(clock, 5, 70, 1), count=3))
    assert (series.due, series.latency.count, series.latency.total_ns) == (3, 3, 76 * MS)
    assert clock.now == 76 * MS


def test_an_open_load_keeps_its_pace(clock: FakeTime) -> None:
    series = measured(Load("x", lasting(clock, 1, 2, 3), count=3, per_second=100))
    assert (series.due, series.latency.total_ns) == (3, 6 * MS)
    assert clock.now == 23 * MS


def test_a_stall_counts_for_every_operation_that_became_due_meanwhile(clock: FakeTime) -> None:
    series = measured(Load("x", lasting(clock, 35, 1, 1, 1, 1), count=5, per_second=100))
    # due at 0, 10, 20, 30; ended at 35, 36, 37, 38; the fifth is on schedule again
    assert series.latency.total_ns == (35 + 26 + 17 + 8 + 1) * MS


def test_waking_late_moves_the_schedule(clock: FakeTime) -> None:
    clock.overslept = 50 * MS
    series = measured(Load("x", lasting(clock, 1, 1, 1), count=3, per_second=100))
    assert series.latency.max_ns == 1 * MS


@pytest.mark.parametrize("per_second", [0, 100])
def test_failures_are_counted_and_are_no_latencies(per_second: float, clock: FakeTime) -> None:
    series = measured(Load("x", lasting(clock, 1, -7, 1), count=3, per_second=per_second))
    assert (series.due, series.failed, series.latency.count, series.latency.max_ns) == (3, 1, 2, 1 * MS)


def test_operations_due_when_a_load_is_stopped_are_reported(clock: FakeTime) -> None:
    stop = StopFlag()
    series = measured(Load("x", lasting(clock, 1, 95, after=stop.raise_), per_second=100), stop)
    # the second began at 10 and ended at 105: 20, 30, ... 100 were due
    assert (series.due, series.latency.count) == (11, 2)


def test_operations_due_as_a_load_is_stopped_are_not_delayed(clock: FakeTime) -> None:
    stop = StopFlag()
    clock.asleep = stop.raise_
    series = measured(Load("x", lasting(clock, 1), per_second=100), stop)
    assert (series.due, series.latency.count) == (1, 1)


@pytest.mark.parametrize("per_second", [0, 100])
def test_a_load_that_is_stopped_early_was_due_whole(per_second: float, clock: FakeTime) -> None:
    stop = StopFlag()
    load = Load("x", lasting(clock, 1, 1, after=stop.raise_), count=9, per_second=per_second)
    series = measured(load, stop)
    assert (series.due, series.latency.count) == (9, 2)


def test_preparation_is_not_measured(clock: FakeTime) -> None:
    load = Load("x", lasting(clock, 1), count=1, first=lambda: lasting(clock, 500)(0))
    assert measured(load).latency.max_ns == 1 * MS
