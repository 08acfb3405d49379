"""The scenario without a mount: its files and loads on a plain directory, and the order of a pass."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.scenario import Loop
from deferfs.measure.scenarios.dispatch import HANDLERS, SCENARIO, SIDES, Parameters, Passes, loads, make_files
from deferfs.measure.work.processes import StopFlag
from deferfs.measure.work.race import Loads
from tests.unit.measure.slow_mounts import fake_machine

SMALL = Parameters(handlers=4, files=20, extents=4, closes_per_second=500, seconds=0.05)


def test_each_block_of_a_file_stands_alone(tmp_path: Path) -> None:
    make_files(tmp_path, SMALL)
    held = list(tmp_path.rglob("held*/*"))
    assert len(held) == 20
    assert {path.stat().st_size for path in held} == {7 * 4096}
    descriptor = os.open(held[0], os.O_RDONLY)
    assert [os.lseek(descriptor, 4096 * hole, os.SEEK_DATA) for hole in (1, 3, 5)] == [2 * 4096, 4 * 4096, 6 * 4096]
    os.close(descriptor)


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_files_are_deleted_before_the_clock_starts_and_closed_by_the_load(loop: Loop, tmp_path: Path) -> None:
    make_files(tmp_path, SMALL)
    for load in loads(tmp_path, loop, SMALL):
        load.prepare()
        assert list(tmp_path.rglob("held*/*")) == []
        series = load.measure(StopFlag()).series[load.name]
        assert (series.failed, series.latency.count) == (0, series.due)


def test_the_sweep_is_over_handlers() -> None:
    points = SCENARIO.sweep(Parameters())
    assert points == [Parameters(handlers=handlers) for handlers in HANDLERS]


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.name)
def test_files_are_taken_with_a_quick_disk_and_the_floor_cleans_up_nothing(
    side: object, failure: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Up to the moment at which the loads start, which fails here."""
    machine = fake_machine(monkeypatch)
    presets: list[list[str]] = []

    def start(self: Loads, *_: object) -> None:
        presets.append(list(machine.disks[0].presets))
        raise failure

    def copy_image(source: Path, destination: Path) -> None:
        make_files(destination.parent / "mnt", SMALL)

    monkeypatch.setattr(Loads, "run", start)
    monkeypatch.setattr("deferfs.measure.mounts.slow_mount.copy_image", copy_image)
    passes = Passes(lambda: tmp_path / "image", SMALL, machine.surroundings(tmp_path / "scratch"))
    with pytest.raises(type(failure)):
        passes.perform(next(one for one in SIDES if one is side), "open", 1)
    assert presets == [["the disk", "none", "the disk"]]
    assert (("gc", "stop") in machine.settings) is (side is SIDES[2])
    assert "handlers=4" in machine.commands[0]
    assert not machine.mounted
    assert list((tmp_path / "scratch").iterdir()) == []
