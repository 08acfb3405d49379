"""The scenario without a mount: its files and operations on a plain directory, its points and sentences."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.scenario import Pass, Series, Wait
from deferfs.measure.scenarios import direct_reclaim
from deferfs.measure.scenarios.direct_reclaim import (
    CONTENT,
    SCENARIO,
    SIDES,
    Files,
    Parameters,
    file_path,
    make_files,
    orphan_paths,
)
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.paced import Load
from deferfs.measure.work.processes import StopFlag
from tests.unit.measure.slow_mounts import Machine, fake_machine

THEN = 1_700_000_000
SMALL = Parameters(owing=20, files=10, others=25)


def never_read(root: Path) -> list[Path]:
    """The files and symbolic links below `root` that were not read since they were written. From then on, what is read
    has a later time, however coarse the clock of the filesystem is."""
    found = [path for path in root.rglob("*") if not stat.S_ISDIR(path.lstat().st_mode) and not is_read(path)]
    for path in found:
        os.utime(path, (THEN, THEN), follow_symlinks=False)
    return found


def is_read(path: Path) -> bool:
    """Whether it was read since it was written."""
    times = path.lstat()
    return times.st_atime_ns > times.st_mtime_ns


def test_every_load_finds_its_files_which_were_never_read(tmp_path: Path) -> None:
    make_files(tmp_path, SMALL)
    unread = never_read(tmp_path)
    assert len(unread) == 30 + 2 * 25 + 1
    files = Files(tmp_path, SMALL)
    files._owe()
    fresh = [path for path in unread if is_read(path)]
    assert sorted(fresh) == sorted(path for path in (tmp_path.rglob("files*/*")) if int(path.name) < 20)
    stop = StopFlag()
    for load in files.closed().main:
        assert isinstance(load, Load)
        load.prepare()
        series = load.measure(stop).series[load.name]
        assert (series.failed, series.latency.count) == (0, series.due)


def test_links_owe_as_files_do(tmp_path: Path) -> None:
    parameters = msgspec.structs.replace(SMALL, owing_links=True)
    make_files(tmp_path, parameters)
    links = [Path(file_path(str(tmp_path), number)) for number in range(20)]
    assert set(links) <= set(never_read(tmp_path))
    assert Path(file_path(str(tmp_path), 20)).read_bytes() == CONTENT
    Files(tmp_path, parameters)._owe()
    assert all(map(is_read, links))
    assert all(path.is_symlink() for path in links)


def test_jobs_beside_the_load_cycle_through_their_files(tmp_path: Path) -> None:
    make_files(tmp_path, SMALL)
    main, beside = Files(tmp_path, SMALL).open()
    assert [load.name for load in main] == ["load"]
    assert [load.name for load in beside] == ["read", "stat", "neighbour"]
    for load in beside:
        assert isinstance(load, Load)
        for number in (0, SMALL.others - 1, SMALL.others, 5 * SMALL.others):
            load._operation(number)


def test_a_process_exits_where_there_are_orphans(tmp_path: Path) -> None:
    parameters = msgspec.structs.replace(SMALL, orphans=2, orphan_extents=3)
    make_files(tmp_path, parameters)
    orphans = orphan_paths(tmp_path, parameters)
    assert [Path(path).stat().st_size for path in orphans] == [5 * 4096] * 2
    files = Files(tmp_path, parameters, orphans)
    assert [load.name for load in files.closed().main] == ["load", "stat", "exit"]
    assert [load.name for load in files.open().main] == ["load", "exit"]
    assert [load.name for load in Files(tmp_path, parameters).closed().main] == ["load", "stat"]


def test_the_sweep_has_more_files_than_the_budget_holds() -> None:
    points = SCENARIO.sweep(Parameters())
    assert [(point.memory_mib, point.background) for point in points] == [  # type: ignore[attr-defined]
        (8, True), (16, True), (64, True), (0, True), (8, False), (16, False), (8, True)
    ]  # fmt: skip
    assert Parameters(memory_mib=16, owing=34_000, files=6_000) in points
    for point in points:
        assert isinstance(point, Parameters)
        assert point.background is not bool(point.kernel_mib)


def test_missing_requirements_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deferfs.measure.slow_disk.missing", lambda: "no disk")
    monkeypatch.setattr(direct_reclaim, "find_hierarchy", lambda: None)
    assert SCENARIO.missing(SIDES[0], Parameters()) == "no disk"
    assert "memory cgroup" in SCENARIO.missing(SIDES[0], Parameters(memory_mib=0))
    assert "memory cgroup" in SCENARIO.missing(SIDES[0], Parameters(kernel_mib=12, background=False))


def one_pass(side: str, waits: int, used: int) -> Pass:
    return Pass(
        side=side,
        loop="open",
        outcome="finished",
        seconds=1.0,
        series={"read": Series(fold([1, 2]), 2)},
        counters={"used_highest_bytes": used, "budget_bytes": 100},
        waits={"memory": Wait(waits, waits * 500_000_000)} if waits else {},
    )


def test_sentences() -> None:
    passes = [
        one_pass("inline", 4, 80),
        one_pass("deferred", 9, 130),
        one_pass("deferred", 2, 90),
        one_pass("floor", 0, 70),
    ]
    memory, budget = SCENARIO.sentences(passes, Parameters())
    assert memory == (
        "requests waited for memory, in the median pass with a load: 4 times, 2.0 s together inline;"
        " 6 times, 2.8 s together deferred; 0 times, 0.0 s together with nothing owed"
    )
    assert budget == "of the budget, up to this much was in use: 80% inline; 130% deferred; 70% with nothing owed"
    assert SCENARIO.sentences([], Parameters()) == []


def test_a_process_that_exits_beside_the_load_is_named_first() -> None:
    first, *rest = SCENARIO.sentences([one_pass("inline", 4, 80)], Parameters(orphans=20))
    assert first == (
        "meanwhile, except with nothing owed, a process exited that held the last references to 20 deleted files of"
        " 1,000 extents each"
    )
    assert rest == SCENARIO.sentences([one_pass("inline", 4, 80)], Parameters())


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("command", ["mkfs", "mount"])
def test_nothing_is_left_of_an_image_that_could_not_be_made(
    command: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine: Machine = fake_machine(monkeypatch)
    machine.failures[command] = failure
    with pytest.raises(type(failure)), SCENARIO.prepared(SMALL, machine.surroundings(tmp_path)):
        pass
    assert not list(tmp_path.glob("*.img"))
