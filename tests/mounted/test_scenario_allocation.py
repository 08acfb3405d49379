"""The scenarios `allocation` and `close` on the real thing: what a pass says, and that it leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deferfs.contract.requests import Answer, Query
from deferfs.errors import DeferfsError
from deferfs.measure.host.cgroup import MemoryCgroup, find_hierarchy
from deferfs.measure.host.stacks import StackSampler
from deferfs.measure.host.tracing import EventTrace
from deferfs.measure.mounts import filesystems
from deferfs.measure.mounts.stage import SIDES
from deferfs.measure.scenario import Pass, Prepared, Scenario, Side, Surroundings
from deferfs.measure.scenarios import allocation, close
from deferfs.measure.slow_disk import SlowDisk
from deferfs.measure.work.allocation_job import Parameters
from deferfs.measure.work.processes import Worker
from deferfs.mount.control import client
from tests.examples import night
from tests.mounted.polling import wait_until
from tests.mounted.scenario_runs import check_passes

pytestmark = [pytest.mark.mounted, pytest.mark.needs("btrfs", "mkfs.btrfs", "mkfs.ext4", "mkfs.xfs")]

TINY = Parameters(inodes=400, extents=6, held_bytes=3 << 19, chunk_bytes=64 << 10, total_bytes=4 << 20)
FEW = close.Parameters(extents=(2, 300), files=2)
BY_NAME = {side.name: side for side in SIDES}
HIERARCHY = find_hierarchy()


class Machine:
    """The surroundings of a run, and what it must not leave."""

    def __init__(self, scratch: Path) -> None:
        self.pids: list[int] = []
        self.scratch = scratch
        self.surroundings = Surroundings(scratch, "none", 1, HIERARCHY, ask, lambda _: None, self.pids.append)
        self._namespace = os.readlink("/proc/self/ns/mnt")

    def assert_nothing_is_left(self) -> None:
        assert os.readlink("/proc/self/ns/mnt") == self._namespace
        assert os.fsencode(self.scratch) not in Path("/proc/self/mountinfo").read_bytes()
        assert [path.name for path in self.scratch.iterdir()] == []
        for pid in self.pids:
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"process {pid} to end")  # type: ignore[misc]
        for number in Path("/sys/block").glob("loop*/loop/backing_file"):
            assert str(self.scratch) not in number.read_text()
        assert HIERARCHY is not None
        name = f"deferfs-allocation-{os.getpid()}"
        assert not (HIERARCHY.memory / name).exists()
        assert HIERARCHY.pressure is None or not (HIERARCHY.pressure / name).exists()


def ask(root: Path, request: Query[Answer]) -> Answer:
    return client.ask(client.find_mount(str(root)), request)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    if HIERARCHY is None:
        pytest.skip("no memory cgroups here")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    machine = Machine(scratch)
    yield machine
    machine.assert_nothing_is_left()


@contextmanager
def prepared(scenario: Scenario, parameters: Any, machine: Machine, *names: str) -> Iterator[Prepared]:
    """Prepared for these sides alone."""
    with pytest.MonkeyPatch.context() as patch:
        sides = tuple(BY_NAME[name] for name in names)
        patch.setattr(allocation, "SIDES", sides)
        patch.setattr(close, "SIDES", sides)
        with scenario.prepared(parameters, machine.surroundings) as found:
            yield found


def perform(prepared: Prepared, name: str) -> Pass:
    side = BY_NAME[name]
    assert allocation.SCENARIO.missing(side, TINY) == ""
    return prepared.perform(side, "closed", 0)


def check(found: Pass, side: Side, chunks: int) -> None:
    latencies = found.series["allocation"].latency
    assert found.side == side.name
    assert found.outcome in ("finished", "oom-killed")
    assert latencies.count == chunks or found.outcome == "oom-killed"
    assert found.counters["oom_kills_total"] == (found.outcome == "oom-killed")
    assert found.counters["limit_hits_total"] > 0
    (stall,) = found.stalls
    assert stall.duration_ns == latencies.max_ns


@pytest.mark.parametrize("variant", ["unlink", "linked"])
def test_an_allocation_on_each_filesystem(machine: Machine, variant: Any) -> None:
    parameters = Parameters(**{name: getattr(TINY, name) for name in TINY.__struct_fields__} | {"variant": variant})
    with prepared(allocation.SCENARIO, parameters, machine, *BY_NAME) as ready:
        passes = [perform(ready, name) for name in BY_NAME]
    for found, side in zip(passes, SIDES, strict=True):
        check(found, side, TINY.total_bytes // TINY.chunk_bytes)
    check_passes(allocation.SCENARIO, parameters, machine.surroundings, passes)


def test_a_process_that_cannot_be_given_memory_is_killed_and_counted(machine: Machine) -> None:
    """More is held than the cgroup may have, whatever is reclaimed."""
    greedy = Parameters(inodes=400, extents=1, held_bytes=32 << 20, total_bytes=32 << 20)
    with prepared(allocation.SCENARIO, greedy, machine, "tmpfs") as ready:
        found = perform(ready, "tmpfs")
    assert found.outcome == "oom-killed"
    latencies = found.series["allocation"].latency
    assert 0 < latencies.count <= greedy.total_bytes // greedy.chunk_bytes
    assert found.counters["kernel_settled_bytes"] <= found.counters["kernel_before_bytes"]


def test_a_pass_that_takes_too_long_is_unfinished(machine: Machine) -> None:
    hasty = Parameters(inodes=400, extents=1, total_bytes=64 << 30, chunk_bytes=64 << 20, held_bytes=0, seconds_max=0.0)
    with prepared(allocation.SCENARIO, hasty, machine, "ext4") as ready, pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryCgroup, "set_limit", lambda *_: None)
        assert perform(ready, "ext4").outcome == "unfinished"


def test_closing_on_each_filesystem(machine: Machine) -> None:
    with prepared(close.SCENARIO, FEW, machine, *BY_NAME) as ready:
        passes = [perform(ready, name) for name in BY_NAME]
        check_passes(close.SCENARIO, FEW, machine.surroundings, passes)
        for found in passes:
            assert found.outcome == "finished"
            assert {name: series.latency.count for name, series in found.series.items()} == dict.fromkeys(
                ["unlink, 2 extents", "close, 2 extents", "unlink, 300 extents", "close, 300 extents"], 2
            )


def failing(original: Callable[..., Any], error: type[BaseException], after: bool) -> Callable[..., Any]:
    def call(*arguments: Any, **fields: Any) -> Any:
        if after:
            original(*arguments, **fields)
        raise error

    return call


STEPS: list[tuple[Any, str, bool]] = [
    (filesystems, "mounted", False),
    (allocation, "overlaid", False),
    (EventTrace, "_find_tracefs", False),
    (EventTrace, "_write", True),
    (MemoryCgroup, "_set_up", True),
    (MemoryCgroup, "add", False),
    (Worker, "join", True),
    (Worker, "wait_ready", False),
    (allocation, "owe_by_unlinking", True),
    (MemoryCgroup, "set_limit", False),
    (StackSampler, "__enter__", False),
    (Worker, "go", True),
    (Worker, "result", False),
    (EventTrace, "lines", False),
    (SlowDisk, "counters", False),
]
"""Where a pass is cut off: before the step, or after it."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, night(DeferfsError)])
@pytest.mark.parametrize(("home", "step", "after"), STEPS, ids=[step for _, step, _ in STEPS])
@pytest.mark.parametrize("name", ["ext4"])
def test_a_pass_that_is_cut_off_leaves_nothing(
    machine: Machine, name: str, home: Any, step: str, after: bool, error: type[BaseException]
) -> None:
    with prepared(allocation.SCENARIO, TINY, machine, name) as ready, pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, step, failing(getattr(home, step), error, after))
        with pytest.raises(error):
            perform(ready, name)
        assert os.listdir(machine.surroundings.scratch / "mnt") == []
