"""Scenarios of `deferfs bench` on the real thing, small: what they need around them, and what they must not leave."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import msgspec
import pytest

from deferfs.contract.requests import Answer, Query
from deferfs.measure import slow_disk
from deferfs.measure.harness import Collected, Conditions, Plan, report_on
from deferfs.measure.host.cgroup import find_hierarchy
from deferfs.measure.results import encode_report, json_schema
from deferfs.measure.scenario import Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.work.race import Loads
from deferfs.mount.control import client
from tests.mounted.polling import wait_until

UNITS = ("_total", "_bytes", "_seconds", "_ns")
DISK = "read=0.1,write=0.1,flush=0.2"


def ask(root: Path, request: Query[Answer]) -> Answer:
    """The daemon behind the mountpoint."""
    return client.ask(client.find_mount(str(root)), request)


def surroundings(scratch: Path, own: Callable[[int], None] = lambda pid: None) -> Surroundings:
    """A quick slow disk; the test is skipped where there is none."""
    if lack := slow_disk.missing():
        pytest.skip(lack)
    scratch.mkdir()
    return Surroundings(
        scratch=scratch, disk=DISK, seed=1, hierarchy=find_hierarchy(), ask=ask, tell=lambda text: None, own=own
    )


@contextmanager
def prepared(scenario: Scenario, parameters: msgspec.Struct, scratch: Path) -> Iterator[tuple[Prepared, Surroundings]]:
    """A scenario on a quick disk; afterwards nothing of it may be left, however the block ends."""
    pids: list[int] = []
    around = surroundings(scratch, pids.append)
    try:
        with scenario.prepared(parameters, around) as found:
            yield found, around
    finally:
        check_nothing_left(scratch, pids)


def check_broken_off(
    scenario: Scenario, parameters: msgspec.Struct, side: Side, failure: BaseException, scratch: Path
) -> None:
    """An open pass that fails when its loads start leaves nothing."""

    def broken_off(self: Loads, *_: object) -> None:
        raise failure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loads, "run", broken_off)
        with pytest.raises(type(failure)), prepared(scenario, parameters, scratch) as (ready, _):
            ready.perform(side, "open", 1)


def check_nothing_left(scratch: Path, pids: list[int]) -> None:
    """No mount, no loop device, no cgroup, no process, no file."""
    assert str(scratch) not in Path("/proc/self/mountinfo").read_text()
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        assert str(scratch) not in backing.read_text()
    hierarchy = find_hierarchy()
    assert hierarchy is None or not list(hierarchy.memory.glob(f"deferfs-bench-*{os.getpid()}*"))
    wait_until(lambda: not any(map(_runs, pids)), "all processes to end")  # a daemon may, after its image is clean
    assert list(scratch.iterdir()) == []


def _runs(pid: int) -> bool:
    """A container may have no process that collects those whose parent is gone: they stay as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def check_schema(document: bytes) -> None:
    """A result of `--json` is as `deferfs bench schema` says, and each counter's name ends in its unit."""
    found = json.loads(document)
    jsonschema.validate(found, json_schema())
    for result in found["results"]:
        assert result["passes"] != [], found["notes"]
        for one in result["passes"]:
            assert [name for name in one["counters"] if not name.endswith(UNITS)] == []


def check_passes(scenario: Scenario, parameters: msgspec.Struct, around: Surroundings, passes: Sequence[Pass]) -> None:
    """So is the result that the harness makes of these passes."""
    plan = Plan(scenario, parameters, disk=around.disk)
    collected = Collected(plan, list(scenario.sides(parameters)), {}, list(passes))
    conditions = Conditions(around.scratch, around.seed, around.hierarchy, around.ask, around.tell)
    check_schema(encode_report(report_on([collected], conditions)))


def check_pass(found: Pass, *series: str) -> None:
    """Each operation has been done, and none has failed."""
    assert found.outcome == "finished"
    assert set(found.series) == set(series)
    for name, one in found.series.items():
        assert one.failed == 0, name
        assert one.latency.count > 0, name
    assert found.seconds > 0
    assert found.counters["disk_reads_total"] > 0
    assert "queued_total" in found.counters
