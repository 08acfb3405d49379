"""The scenario `churn`, small, on a slow disk that is quick and on a deferfs that is mounted already."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import find_hierarchy
from deferfs.measure.host.tracing import ReclaimTrace
from deferfs.measure.mounts.loaded_pass import Jobs, loaded_pass, memory_cgroup
from deferfs.measure.mounts.slow_mount import prepared_image, slow_mount
from deferfs.measure.scenarios.churn import DEFERRED, FLOOR, INLINE, SCENARIO, Parameters
from deferfs.measure.work.paced import Load
from deferfs.measure.work.race import Loads
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


def test_a_daemon_runs_in_the_memory_cgroup_of_its_users(tmp_path: Path) -> None:
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    groups: list[str] = []
    around = surroundings(tmp_path / "scratch", lambda pid: groups.append(Path(f"/proc/{pid}/cgroup").read_text()))
    parameters = Parameters(rounds=2, tree_files=5000, kernel_mib=14, daemon_inside=True)
    with SCENARIO.prepared(parameters, around) as prepared:
        found = prepared.perform(DEFERRED, "closed", 1)
    assert sum(f"deferfs-bench-{os.getpid()}" in group for group in groups) == 1  # loads join after they are reported
    assert found.outcome == "finished"
    assert set(found.series) == set(KINDS)
    check_nothing_left(around.scratch, [])


def test_reclaim_in_the_kernel_is_attributed_to_the_load_that_caused_it(tmp_path: Path) -> None:
    """A load reads four times what its memory cgroup may have of the page cache."""
    if find_hierarchy() is None:
        pytest.skip("no memory cgroups")
    around = surroundings(tmp_path / "scratch")

    def read(number: int) -> None:
        with (mount.root / "large").open("rb", buffering=0) as file:
            file.seek(number << 20)
            file.read(1 << 20)

    with (
        prepared_image(around, lambda root: (root / "large").write_bytes(bytes(32 << 20))) as image,
        memory_cgroup(around, 8) as cgroup,
        slow_mount(image(), ["memory=4M"], around) as mount,
        ReclaimTrace(f"deferfs-bench-{os.getpid()}") as trace,
    ):
        jobs = Jobs([Load("reader", read, count=32)])
        found = loaded_pass(DEFERRED, "closed", mount, jobs, around, cgroup=cgroup, trace=trace)
    check_pass(found, "reader")
    if not found.notes:  # no tracefs here
        assert found.waits["kernel reclaim, reader"].count > 0
    check_nothing_left(around.scratch, [])


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
    assert statistics.evict == "deferred"
    assert not statistics.gc.stopped
    assert list(mount.iterdir()) == []
    plain.was_inline = True
    plain.unmount_and_check()
    check_nothing_left(around.scratch, [])
