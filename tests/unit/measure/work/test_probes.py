from pathlib import Path

import pytest

from deferfs.measure.work import probes
from deferfs.measure.work.probes import Operation, Probe, ProbeResult, standard_probes
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.tree import make_tree
from tests.unit.measure.clocks import MS, FakeTime


class Scripted:
    """Takes the given times one after the other, then asks to stop."""

    name = "scripted"
    interval_ns = 10 * MS

    def __init__(self, clock: FakeTime, stop: StopFlag, times_ms: list[float]) -> None:
        self._clock, self._stop = clock, stop
        self._times = [0.0, *times_ms]  # the first is the one of `prepare`

    def prepare(self) -> None:
        pass

    def ready(self) -> None:
        pass

    def step(self) -> None:
        self._clock.now += round(self._times.pop(0) * MS)
        if not self._times:
            self._stop.raise_()


class Failing(Scripted):
    def step(self) -> None:
        super().step()
        if self._times:
            raise OSError("no")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(probes, "time", fake)
    return fake


def measured(operation: Operation, stop: StopFlag) -> ProbeResult:
    probe = Probe(operation)
    probe.prepare()
    return probe.measure(stop)


def test_operations_on_schedule_count_from_their_call(clock: FakeTime) -> None:
    stop = StopFlag()
    result = measured(Scripted(clock, stop, [1, 2, 3]), stop)
    assert (result.due, result.done, result.failed) == (3, 3, 0)
    assert result.response == result.service
    assert result.response.max_ns == 3 * MS
    assert clock.now == 2 * 10 * MS + 3 * MS


def test_a_stall_counts_for_every_operation_that_became_due_meanwhile(clock: FakeTime) -> None:
    stop = StopFlag()
    result = measured(Scripted(clock, stop, [35, 1, 1, 1, 1]), stop)
    assert result.service.total_ns == 39 * MS
    # due at 0, 10, 20, 30; ended at 35, 36, 37, 38; the fifth is on schedule again
    assert result.response.total_ns == (35 + 26 + 17 + 8 + 1) * MS
    assert (result.due, result.done) == (5, 5)


def test_operations_due_but_never_done_are_reported(clock: FakeTime) -> None:
    stop = StopFlag()
    result = measured(Scripted(clock, stop, [1, 95]), stop)
    # the second began at 10 and ended at 105; 20, 30, ... 100 were due meanwhile
    assert (result.due, result.done) == (11, 2)


def test_operations_due_as_a_probe_is_stopped_are_not_delayed(clock: FakeTime) -> None:
    stop = StopFlag()
    clock.asleep = stop.raise_
    result = measured(Scripted(clock, stop, [1, 1]), stop)
    assert (result.due, result.done) == (1, 1)


def test_waking_late_moves_the_schedule(clock: FakeTime) -> None:
    clock.overslept = 50 * MS
    stop = StopFlag()
    result = measured(Scripted(clock, stop, [1, 1, 1]), stop)
    assert result.response.max_ns == 1 * MS
    assert (result.due, result.done) == (3, 3)


def test_failures_are_counted(clock: FakeTime) -> None:
    stop = StopFlag()
    operation = Failing(clock, stop, [1, 1, 1])
    operation.prepare()
    result = Probe(operation).measure(stop)
    assert (result.due, result.done, result.failed) == (4, 1, 3)


def test_the_standard_probes_do_their_operation(tmp_path: Path) -> None:
    make_tree(tmp_path, 200)
    for probe in standard_probes(tmp_path, 200, seed=1):
        probe.prepare()
        stop = StopFlag()
        stop.raise_()
        assert probe.measure(stop).done == 0
    assert len(list((tmp_path / "probe-create").iterdir())) == 1
    assert (tmp_path / "probe-write").stat().st_size == 4096 * probes.WRITE_FILE_BLOCKS
