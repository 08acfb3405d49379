"""The scenario `churn`, small, on a slow disk that is quick and on a deferfs that is mounted already."""

from __future__ import annotations

from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.race import Loads
from deferfs.measure.scenarios.churn import FLOOR, INLINE, SCENARIO, Parameters
from tests.mounted.scenario_runs import check_nothing_left, check_pass, check_passes, surroundings
from tests.mounted.scratch import Scratch

pytestmark = pytest.mark.mounted

SMALL = Parameters(rounds=2, tree_files=400)
PROBES = ("create", "stat", "write", "fsync", "memory")
KINDS = tuple(f"churn-{kind}" for kind in ("open", "create", "write", "fsync", "close", "stat", "reopen", "delete"))


def test_the_floor_cleans_up_after_the_clock_has_stopped(tmp_path: Path) -> None:
    pids: list[int] = []
    around = surroundings(tmp_path / "scratch", pids.append)
    with SCENARIO.prepared(SMALL, around) as prepared:
        found = {side.name: prepared.perform(side, "open", 1) for side in SCENARIO.sides(SMALL)}
        closed = prepared.perform(FLOOR, "closed", 1)
    for one in found.values():
        check_pass(one, *PROBES, *KINDS)
        assert one.series["churn-delete"].latency.count == 2 * 19
    check_pass(closed, *KINDS)
    check_passes(SCENARIO, SMALL, around, [*found.values(), closed])
    assert found["inline"].waits["gc"].count > 0
    assert found["inline"].counters["inactivated_total"] > 0
    assert "gc" not in found["deferred"].waits
    for one in (found["floor"], closed):
        assert one.counters["inactivated_total"] == 0
        assert one.counters["queued_total"] > 0
    check_nothing_left(around.scratch, pids)


@pytest.mark.parametrize("failure", [None, DeferfsError("no"), KeyboardInterrupt()])
def test_a_mount_is_left_as_it_was(
    failure: BaseException | None, plain: Scratch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(self: Loads, *_: object) -> None:
        assert failure is not None
        raise failure

    mount = plain.mount()
    parameters = Parameters(rounds=2, tree_files=400, target=str(mount))
    around = surroundings(tmp_path / "scratch")
    with SCENARIO.prepared(parameters, around) as prepared:
        inline = prepared.perform(INLINE, "closed", 1)
        assert inline.waits["gc"].count > 0
        if failure is None:
            floor = prepared.perform(FLOOR, "closed", 1)
            assert floor.counters["inactivated_total"] == 0
        else:
            monkeypatch.setattr(Loads, "run", broken_off)
            with pytest.raises(type(failure)):
                prepared.perform(FLOOR, "open", 1)
    statistics = plain.statistics()
    assert statistics["evict"] == "deferred"
    assert not statistics["gc"]["stopped"]
    assert list(mount.iterdir()) == []
    plain.was_inline = True
    plain.unmount_and_check()
    check_nothing_left(around.scratch, [])
