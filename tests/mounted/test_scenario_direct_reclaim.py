"""The scenario `direct-reclaim` with few files on a quick disk: what a pass tells, and that it leaves nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import find_hierarchy
from deferfs.measure.scenarios.direct_reclaim import SCENARIO, SIDES, Parameters
from tests.mounted.scenario_runs import check_broken_off, check_pass, check_passes, prepared

pytestmark = pytest.mark.mounted

SMALL = Parameters(owing=300, files=300, others=200)


def test_each_side_does_the_same_work_and_the_floor_owes_nothing(tmp_path: Path) -> None:
    with prepared(SCENARIO, SMALL, tmp_path / "scratch") as (ready, around):
        found = {side.name: ready.perform(side, "closed", 1) for side in SIDES}
    for one in found.values():
        check_pass(one, "load", "stat")
        assert one.series["load"].latency.count == 300
        assert one.counters["budget_bytes"] == 4 << 20
        assert one.seconds >= one.counters["load_seconds"] + one.counters["owed_seconds"]
    check_passes(SCENARIO, SMALL, around, list(found.values()))
    assert found["floor"].counters["disk_written_bytes"] < found["inline"].counters["disk_written_bytes"]
    assert found["floor"].counters["disk_written_bytes"] < found["deferred"].counters["disk_written_bytes"]


def test_a_process_that_exits_leaves_its_deleted_files_to_be_cleaned_up(tmp_path: Path) -> None:
    parameters = msgspec.structs.replace(SMALL, orphans=5, orphan_extents=200)
    with prepared(SCENARIO, parameters, tmp_path / "scratch") as (ready, _):
        found = {side.name: ready.perform(side, "closed", 1) for side in SIDES}
    for name in ("inline", "deferred"):
        check_pass(found[name], "load", "stat", "exit")
        assert found[name].series["exit"].latency.count == 5
        assert found[name].counters["inactivated_total"] >= 5
    check_pass(found["floor"], "load", "stat")
    assert found["floor"].counters["inactivated_total"] == 0


def test_without_a_background_reclaimer_operations_reclaim_for_themselves(tmp_path: Path) -> None:
    """The kernel has little memory too, and forgets."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    parameters = Parameters(memory_mib=2, background=False, owing=600, files=650, others=150, kernel_mib=12)
    with prepared(SCENARIO, parameters, tmp_path / "scratch") as (ready, _):
        passes = {side.name: ready.perform(side, "open", 1) for side in SIDES}
    for name, found in passes.items():
        check_pass(found, "load", "read", "stat", "neighbour")
        assert found.counters["direct_reclaims_total"] > 0, name
        assert found.waits["memory"].count > 0, name
        if name != "inline":
            assert found.counters["reclaim_waits_total"] == 0, name


def test_the_budget_follows_the_limit_of_the_cgroup(tmp_path: Path) -> None:
    """The daemon is in it before it looks for its budget."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    parameters = msgspec.structs.replace(SMALL, memory_mib=0)
    with prepared(SCENARIO, parameters, tmp_path / "scratch") as (ready, _):
        found = ready.perform(SIDES[1], "closed", 1)
    assert found.counters["budget_bytes"] == 32 << 20


@pytest.mark.parametrize("failure", [DeferfsError("no"), KeyboardInterrupt()])
def test_nothing_is_left_when_a_pass_is_broken_off(failure: BaseException, tmp_path: Path) -> None:
    check_broken_off(SCENARIO, SMALL, SIDES[1], failure, tmp_path / "scratch")
