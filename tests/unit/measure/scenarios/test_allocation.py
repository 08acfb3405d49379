from pathlib import Path
from typing import Any

import msgspec
import pytest

from deferfs.errors import EnvironmentProblem
from deferfs.measure.host.cgroup import MemoryReading
from deferfs.measure.mounts import stage
from deferfs.measure.scenario import Outcome, Pass, Series, Side, Stall
from deferfs.measure.scenarios import allocation
from deferfs.measure.scenarios.allocation import SCENARIO
from deferfs.measure.stats.histogram import fold
from deferfs.measure.work.allocation_job import Parameters
from tests.unit.measure.fakes import without_daemons

DEFAULTS = Parameters()
STACK = ["read_extent", "ext4_read_bh", "ext4_ext_remove_space", "ext4_truncate", "ext4_evict_inode", "evict", "iput"]


def one(side: str, longest_ns: int, outcome: Outcome = "finished", **more: Any) -> Pass:
    series = {"allocation": Series(fold([1000, longest_ns]), 64)}
    return Pass(side, "closed", outcome, 1.0, series, **more)


def said(*passes: Pass) -> list[str]:
    return SCENARIO.sentences(passes, DEFAULTS)


def test_the_longest_wait_of_each_side_and_how_often_it_was_killed() -> None:
    (sentence,) = said(
        one("ext4", 12_137_000_000),
        one("xfs", 66_000_000, "oom-killed"),
        one("ext4", 15_693_000_000),
        one("xfs", 70_000_000),
        one("inline", 34_000_000, "unfinished"),
    )
    assert sentence == (
        "One allocation in a memory cgroup waited up to 15.7 s on ext4, 70.0 ms on XFS (OOM-killed 1 of 2), "
        "34.0 ms on deferfs, inline (unfinished 1 of 1)."
    )


def test_the_stack_of_the_longest_wait() -> None:
    stalls = [Stall("allocation", 5_000_000_000, STACK, 9)]
    unseen = [Stall("allocation", 9, [], 0)]
    _, sentence = said(one("ext4", 5_000_000_000, stalls=stalls), one("tmpfs", 9, stalls=unseen))
    assert sentence == (
        "The longest wait, 5.00 s on ext4, was seen most often in ext4_read_bh < ext4_ext_remove_space < ext4_truncate."
    )


def test_a_stack_without_a_filesystem_is_named_by_its_innermost_functions() -> None:
    stall = Stall("allocation", 9_000_000, ["shrink_node", "do_try_to_free_pages"], 1)
    _, sentence = said(one("tmpfs", 9_000_000, stalls=[stall]))
    assert sentence.endswith("was seen most often in shrink_node < do_try_to_free_pages.")


def test_kernel_memory_charged_at_the_kill() -> None:
    counters = {"kernel_when_killed_bytes": 10.0 * (1 << 20), "kernel_settled_bytes": 0.1 * (1 << 20)}
    _, sentence = said(one("tmpfs", 9_000_000, "oom-killed", counters=counters))
    assert sentence == (
        "When the process was OOM-killed on tmpfs, its cgroup was charged 10.0 MiB for the kernel's objects; a moment "
        "later, 0.1 MiB."
    )


def test_nothing_was_measured() -> None:
    assert said() == []


@pytest.mark.parametrize("variant", ["unlink", "linked"])
def test_points_of_the_sweep(variant: str) -> None:
    points = SCENARIO.sweep(msgspec.structs.replace(DEFAULTS, variant=variant))
    assert {point.inodes for point in points} >= {100, 30_000}
    assert {point.variant for point in points} == {variant, "linked"}
    for point in points:
        assert point.chunk_bytes % 4096 == 0
        assert point.headroom_bytes < point.held_bytes <= point.total_bytes
        assert point.held_bytes - point.headroom_bytes < point.inodes * allocation.BYTES_PER_INODE
        assert point.total_bytes // point.chunk_bytes >= 2 * allocation.CHUNKS_HELD_MIN


def test_events_before_the_kill_are_told_apart() -> None:
    lines = [
        "  kworker/0:1-9   [000] .....  1.000000: xfs_inodegc_worker: dev",
        "  python-7   [000] .....  1.000001: mark_victim: pid=7",
        "  kworker/0:1-9   [000] .....  1.000002: xfs_inodegc_worker: dev",
    ]
    assert allocation._event_counters(lines) == {
        "xfs_inodegc_worker_total": 2,
        "mark_victim_total": 1,
        "xfs_inodegc_worker_until_kill_total": 1,
    }
    assert allocation._event_counters(lines[:1]) == {"xfs_inodegc_worker_total": 1}


def test_dentries_that_were_dropped_before_hold_nothing() -> None:
    def reading(kernel_bytes: int) -> MemoryReading:
        return MemoryReading(0, 0, 0, 0, kernel_bytes, {}, {})

    assert allocation._held(reading(6000 * 2000), 6000)
    assert not allocation._held(reading(8192), 6000)
    assert allocation._held(reading(0), 6000)  # a kernel that does not tell


def test_missing_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "missing", lambda side: "mkfs.xfs is missing" if side.name == "xfs" else "")
    monkeypatch.setattr(allocation, "knows", lambda module: True)
    monkeypatch.setattr(allocation, "find_hierarchy", lambda: None)
    sides = {side.name: side for side in SCENARIO.sides(DEFAULTS)}
    assert SCENARIO.missing(sides["xfs"], DEFAULTS) == "mkfs.xfs is missing"
    assert SCENARIO.missing(sides["ext4"], DEFAULTS) == "no memory cgroup can be made here"
    monkeypatch.setattr(allocation, "knows", lambda module: False)
    assert SCENARIO.missing(sides["ext4"], DEFAULTS) == "this kernel has no overlayfs"


def test_no_cgroup_is_said_before_anything_is_made(tmp_path: Path) -> None:
    surroundings = without_daemons(tmp_path)
    with pytest.raises(EnvironmentProblem, match="needs a memory cgroup"), SCENARIO.prepared(DEFAULTS, surroundings):
        pass
    assert list(tmp_path.iterdir()) == []


def test_passes_in_which_nothing_was_held_are_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: list[str] = []
    surroundings = without_daemons(tmp_path, told.append)
    prepared = allocation._Prepared(stage.Stage(surroundings, 0, lambda _: None), DEFAULTS)
    outcomes = [None, None, one("ext4", 5)]

    def perform(self: object, side: Side, loop: str) -> Pass:
        found = outcomes.pop(0)
        if found is None:
            raise allocation._NotHeldError
        return found

    monkeypatch.setattr(allocation._Prepared, "_perform", perform)
    assert prepared.perform(stage.SIDES[0], "closed", 0).side == "ext4"
    assert told == ["ext4: another process has dropped the kernel's caches; again"] * 2
    outcomes = [None] * allocation.ATTEMPTS_MAX
    with pytest.raises(Exception, match="caches were dropped in each of 5 passes"):
        prepared.perform(stage.SIDES[0], "closed", 0)
