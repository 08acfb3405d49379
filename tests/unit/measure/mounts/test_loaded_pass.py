"""What a pass of loads tells of the kernel's direct reclaim, and the cgroup that it is made in."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from deferfs.measure.host.tracing import ReclaimSpan, ReclaimTrace
from deferfs.measure.mounts.loaded_pass import kernel_waits, memory_cgroup
from deferfs.measure.scenario import Wait
from tests.unit.measure.slow_mounts import Machine


class Trace:
    def read(self) -> list[ReclaimSpan]:
        return [ReclaimSpan(7, 100, 130), ReclaimSpan(9, 0, 1000), ReclaimSpan(7, 200, 220)]


def test_direct_reclaims_are_waits_of_the_process_that_did_them() -> None:
    found = kernel_waits(cast("ReclaimTrace", Trace()), {7: "workload", 8: "stat"})
    assert found == {"kernel reclaim, workload": Wait(2, 50, 30)}
    assert kernel_waits(None, {7: "workload"}) == {}


def test_a_cgroup_is_none_without_a_controller(tmp_path: Path) -> None:
    with memory_cgroup(Machine().surroundings(tmp_path), 24) as cgroup:
        assert cgroup is None
