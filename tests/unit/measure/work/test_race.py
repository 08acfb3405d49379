"""Real processes with loads that need no filesystem."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import MemoryCgroup
from deferfs.measure.work import race
from deferfs.measure.work.paced import Load
from deferfs.measure.work.processes import WorkerError

SECONDS_MAX = 60.0


class FakeCgroup:
    def __init__(self, oom_kills: int) -> None:
        self.oom_kills = oom_kills
        self.pids: list[int] = []

    def add(self, pid: int) -> None:
        self.pids.append(pid)

    def read(self) -> Any:
        return SimpleNamespace(oom_kills=self.oom_kills)


def nothing(number: int) -> None:
    pass


def killed(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ready(main: list[Load], beside: list[Load], pids: list[int], cgroup: FakeCgroup | None = None) -> Any:
    return race.ready(main, beside, pids.append, cast("MemoryCgroup | None", cgroup))


def test_jobs_beside_end_with_the_main_ones() -> None:
    pids: list[int] = []
    with ready([Load("a", nothing, count=30), Load("b", nothing, count=3)], [Load("c", nothing)], pids) as loads:
        assert loads.names == dict(zip(pids, "abc", strict=True))
        raced = loads.run(SECONDS_MAX, lambda: None)
    assert raced.outcome == "finished"
    assert {name: series.due for name, series in raced.series.items() if name != "c"} == {"a": 30, "b": 3}
    assert raced.series["a"].latency.count == 30
    assert raced.series["c"].due >= raced.series["c"].latency.count
    assert len(pids) == 3
    assert all(map(is_gone, pids))


def test_a_race_that_takes_too_long_is_unfinished_and_tells_what_there_is(tmp_path: Path) -> None:
    watched: list[int] = []
    with ready([Load("a", nothing, per_second=100)], [], []) as loads:
        raced = loads.run(0.0, lambda: watched.append(1))
    assert raced.outcome == "unfinished"
    assert raced.series["a"].latency.count > 0
    assert watched


def test_an_oom_kill_is_an_outcome() -> None:
    cgroup = FakeCgroup(1)
    with ready([Load("a", killed, count=1)], [Load("b", nothing, per_second=10)], [], cgroup) as loads:
        raced = loads.run(SECONDS_MAX, lambda: None)
    assert raced.outcome == "oom-killed"
    assert set(raced.series) == {"b"}
    assert len(cgroup.pids) == 2


@pytest.mark.parametrize("cgroup", [None, FakeCgroup(0)])
def test_another_death_is_a_failure(cgroup: FakeCgroup | None) -> None:
    with ready([Load("a", killed, count=1)], [], [], cgroup) as loads, pytest.raises(WorkerError, match="was killed"):
        loads.run(SECONDS_MAX, lambda: None)


def failing() -> None:
    raise DeferfsError("no such luck")


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("watch", "error"), [(failing, DeferfsError), (interrupted, KeyboardInterrupt)])
def test_no_process_is_left_when_the_watch_is_broken_off(watch: Callable[[], None], error: type[BaseException]) -> None:
    pids: list[int] = []
    with pytest.raises(error), ready([Load("a", nothing, per_second=100)], [Load("b", nothing)], pids) as loads:
        loads.run(SECONDS_MAX, watch)
    assert len(pids) == 2
    assert all(map(is_gone, pids))


def test_no_process_is_left_when_one_cannot_prepare() -> None:
    pids: list[int] = []
    loads = [Load("a", nothing, count=1), Load("b", nothing, count=1, first=failing)]
    with pytest.raises(WorkerError, match="no such luck"), ready(loads, [], pids):
        pass
    assert len(pids) == 2
    assert all(map(is_gone, pids))
