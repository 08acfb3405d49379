from __future__ import annotations

import pytest
import trio

from deferfs.contract import statistics
from deferfs.mount.runtime.activity import Activity, Actor
from deferfs.mount.runtime.timeline import Timeline, create_no_file
from deferfs.mount.runtime.waits import Timing, Waits


@pytest.fixture
def activity() -> Activity:
    return Activity(Timeline(dict, create_no_file))


def test_a_bucket_is_named_by_its_upper_bound() -> None:
    timing = Timing()
    for elapsed in (0, 1, 1023, 1024, 2047, 1 << 60):
        timing.add(elapsed)
    assert timing.snapshot() == statistics.Timing(
        count=6, total_ns=4095 + (1 << 60), max_ns=1 << 60, log2_ns={1: 1, 2: 1, 1024: 1, 2048: 2, 1 << 43: 1}
    )


async def test_waits_are_counted_by_cause_and_by_operation(activity: Activity) -> None:
    waits = Waits(activity)

    async def request(name: str, *causes: str) -> None:
        actor = activity.begin(Actor(name))
        for cause in causes:
            with waits.measure(cause):
                await trio.lowlevel.checkpoint()
        activity.end(actor, 0, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(request, "unlink", "log", "io", "log")
        nursery.start_soon(request, "create", "log")
    found = waits.by_actor_snapshot()
    assert {(name, cause): timing.count for name, causes in found.items() for cause, timing in causes.items()} == {
        ("unlink", "log"): 2,
        ("unlink", "io"): 1,
        ("create", "log"): 1,
    }
    assert waits.by_name["log"].count == 3
    total = found["unlink"]["log"].total_ns + found["create"]["log"].total_ns
    assert total == waits.by_name["log"].total_ns


async def test_a_background_task_waits_under_its_own_name(activity: Activity) -> None:
    waits = Waits(activity)

    async def worker() -> None:
        activity.be("inodegc 0")
        with waits.measure("log"):
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
    with waits.measure("io"):
        pass
    assert {name: set(causes) for name, causes in waits.by_actor_snapshot().items()} == {
        "inodegc 0": {"log"},
        "other": {"io"},
    }


def test_a_wait_that_ends_in_an_error_counts_too(activity: Activity) -> None:
    waits = Waits(activity)
    with pytest.raises(KeyError), waits.measure("gc"):
        raise KeyError
    assert waits.by_name["gc"].count == 1
