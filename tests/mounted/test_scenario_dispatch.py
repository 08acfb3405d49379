"""The scenario `dispatch` with few files on a quick disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.scenarios.dispatch import SCENARIO, SIDES, Parameters
from tests.mounted.scenario_runs import check_broken_off, check_pass, check_passes, prepared

pytestmark = pytest.mark.mounted

SMALL = Parameters(handlers=2, files=40, extents=20, seconds=0.2)


def test_dispatch_reports_which_requests_wait_for_the_cleanup(tmp_path: Path) -> None:
    """Inline, the handlers do; deferred, none; on the floor nothing is cleaned up while the clock runs, and all of it
    afterwards."""
    with prepared(SCENARIO, SMALL, tmp_path / "scratch") as (ready, around):
        inline, deferred, floor = (ready.perform(side, "open", 1) for side in SIDES)
        closed = ready.perform(SIDES[1], "closed", 2)
    for one in (inline, deferred, floor):
        check_pass(one, "close", "open", "statfs")
        assert one.series["close"].latency.count == 40
        assert one.series["open"].latency.count == 40
        assert one.counters["disk_written_bytes"] > 0
    check_pass(closed, "close", "open")
    check_passes(SCENARIO, SMALL, around, [inline, deferred, floor, closed])
    assert inline.waits["gc"].count > 0
    assert "gc" not in deferred.waits
    assert "gc" not in floor.waits
    assert floor.counters["inactivated_total"] == 0
    assert floor.counters["queued_total"] > 0


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
def test_nothing_is_left_when_a_pass_is_broken_off(failure: BaseException, tmp_path: Path) -> None:
    """With deleted files that are held, and inodegc stopped."""
    check_broken_off(SCENARIO, SMALL, SIDES[2], failure, tmp_path / "scratch")
