import os
import shutil
from pathlib import Path

import pytest

from deferfs.measure.host.tracing import (
    EventTrace,
    ReclaimSpan,
    ReclaimTotals,
    ReclaimTrace,
    count_events,
    parse_reclaims,
    totals_by_name,
)

TRACE = """\
# tracer: nop
#
# entries-in-buffer/entries-written: 6/6   #P:2
#
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
   python3 -S-77      [000] .....  1706.100000: mm_vmscan_memcg_reclaim_end: nr_reclaimed=1
              dd-4834    [001] .....  1706.643456: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=X
   python3 -S-77      [000] d..2.  1706.645000: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=X
              dd-4834    [001] .....  1706.648664: mm_vmscan_memcg_reclaim_end: nr_reclaimed=257
   python3 -S-77      [000] .....  1707.000001: mm_vmscan_memcg_reclaim_end: nr_reclaimed=64
              dd-4834    [001] .....  1708.000000: mm_vmscan_memcg_reclaim_begin: order=0 gfp_flags=X
              dd-4834    (   4830) [001] .....  1708.000002: mm_vmscan_memcg_reclaim_end: nr=1
              dd-4834    [001] .....  1709.000000: sched_switch: prev_comm=dd
"""


def test_begin_and_end_are_matched_by_task() -> None:
    assert list(parse_reclaims(TRACE.splitlines())) == [
        ReclaimSpan(4834, 1_706_643_456_000, 1_706_648_664_000),
        ReclaimSpan(77, 1_706_645_000_000, 1_707_000_001_000),
        ReclaimSpan(4834, 1_708_000_000_000, 1_708_000_002_000),
    ]


def test_totals_are_by_name_and_have_everybody() -> None:
    spans = [ReclaimSpan(1, 0, 5), ReclaimSpan(1, 10, 13), ReclaimSpan(9, 0, 100)]
    assert totals_by_name(spans, {1: "stat", 2: "create"}) == {
        "stat": ReclaimTotals(2, 8, 5),
        "create": ReclaimTotals(0, 0, 0),
    }


def test_a_trace_that_is_impossible_says_so_in_one_line(tmp_path: Path) -> None:
    place = tmp_path / "tracing"
    (place / "instances").mkdir(parents=True)
    (place / "instances/bench").mkdir()  # the name is taken: the instance cannot be made
    with ReclaimTrace("bench", [place]) as trace:
        assert trace.problem.startswith("no trace of the kernel's direct reclaim: ")
        assert "\n" not in trace.problem
        assert trace.read() == []


def test_events_are_counted() -> None:
    assert count_events(TRACE.splitlines()) == {
        "mm_vmscan_memcg_reclaim_begin": 3,
        "mm_vmscan_memcg_reclaim_end": 4,
        "sched_switch": 1,
    }


def test_events_that_a_kernel_lacks_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tracing"
    (place / "instances").mkdir(parents=True)
    instance = place / "instances/bench"
    make, remove = Path.mkdir, shutil.rmtree

    def mkdir(path: Path) -> None:
        """As the kernel does, with the files of an instance."""
        make(path)
        if path == instance:
            os.makedirs(path / "events/oom/mark_victim")
            (path / "events/oom/mark_victim/enable").write_text("0")
            (path / "trace").write_text("")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "rmdir", lambda path: remove(path))
    with EventTrace("bench", ["xfs:xfs_inodegc_queue", "oom:mark_victim"], [place]) as trace:
        assert trace.problem == ""
        assert (instance / "events/oom/mark_victim/enable").read_text() == "1"
        (instance / "trace").write_text(TRACE)
        assert len(trace.lines()) == len(TRACE.splitlines())
    assert not instance.exists()
