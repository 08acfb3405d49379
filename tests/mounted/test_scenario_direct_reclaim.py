"""The scenario `direct-reclaim` with few files on a quick disk: what a pass tells, and that it leaves nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.cgroup import find_hierarchy
from deferfs.measure.race import Loads
from deferfs.measure.scenarios.direct_reclaim import SCENARIO, SIDES, Parameters
from tests.mounted.scenario_runs import check_nothing_left, check_pass, check_passes, surroundings

pytestmark = pytest.mark.mounted

SMALL = Parameters(owing=300, files=300, others=200)


def test_each_side_does_the_same_work_and_the_floor_owes_nothing(tmp_path: Path) -> None:
    pids: list[int] = []
    around = surroundings(tmp_path / "scratch", pids.append)
    with SCENARIO.prepared(SMALL, around) as prepared:
        found = {side.name: prepared.perform(side, "closed", 1) for side in SIDES}
    for one in found.values():
        check_pass(one, "load", "stat")
        assert one.series["load"].latency.count == 300
        assert one.counters["budget_bytes"] == 4 << 20
        assert one.seconds >= one.counters["load_seconds"] + one.counters["owed_seconds"]
    check_passes(SCENARIO, SMALL, around, list(found.values()))
    assert found["floor"].counters["disk_written_bytes"] < found["inline"].counters["disk_written_bytes"]
    assert found["floor"].counters["disk_written_bytes"] < found["deferred"].counters["disk_written_bytes"]
    check_nothing_left(around.scratch, pids)


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.name)
def test_without_a_background_reclaimer_operations_reclaim_for_themselves(side: object, tmp_path: Path) -> None:
    """The kernel has little memory too, and forgets."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    around = surroundings(tmp_path / "scratch")
    parameters = Parameters(background=False, owing=3000, files=3000, others=400, kernel_mib=12)
    with SCENARIO.prepared(parameters, around) as prepared:
        found = prepared.perform(next(one for one in SIDES if one is side), "open", 1)
    check_pass(found, "load", "read", "stat", "neighbour")
    assert found.counters["direct_reclaims_total"] > 0
    assert found.waits["memory"].count > 0
    if side is not SIDES[0]:
        assert found.counters["reclaim_waits_total"] == 0
    check_nothing_left(around.scratch, [])


def test_the_budget_of_a_cgroup(tmp_path: Path) -> None:
    """The daemon is in it before it looks for its budget."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    around = surroundings(tmp_path / "scratch")
    with SCENARIO.prepared(msgspec.structs.replace(SMALL, memory_mib=0), around) as prepared:
        found = prepared.perform(SIDES[1], "closed", 1)
    assert found.counters["budget_bytes"] == 32 << 20
    check_nothing_left(around.scratch, [])


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
def test_nothing_is_left_when_a_pass_is_broken_off(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(self: Loads, *_: object) -> None:
        raise failure

    pids: list[int] = []
    around = surroundings(tmp_path / "scratch", pids.append)
    monkeypatch.setattr(Loads, "run", broken_off)
    with pytest.raises(type(failure)), SCENARIO.prepared(SMALL, around) as prepared:
        prepared.perform(SIDES[1], "open", 1)
    check_nothing_left(around.scratch, pids)
