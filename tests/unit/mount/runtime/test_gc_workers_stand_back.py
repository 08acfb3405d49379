"""Cleaning up leaves the time to requests while they stream in, but not all of it. On a clock that jumps."""

from collections.abc import AsyncIterator, Callable
from math import inf

import pytest
import trio
import trio.testing

from deferfs.limits import GC_DELAY_SECONDS, GC_LOOK_SECONDS, GC_LOOKS_MAX
from deferfs.mount.runtime.runtime import Runtime
from deferfs.volume import cleanup
from tests.unit.runtimes import delete_unheld, done, running

BEFORE_THE_END = GC_DELAY_SECONDS + GC_LOOKS_MAX * GC_LOOK_SECONDS / 2
AFTER_THE_END = GC_DELAY_SECONDS + GC_LOOKS_MAX * GC_LOOK_SECONDS * 2


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    async with running(gc_workers=1, seconds_max=inf) as made:
        yield made


def stream(runtime: Runtime, nursery: trio.Nursery) -> trio.CancelScope:
    """A client whose requests follow each other without a pause, until it is cancelled."""
    scope = trio.CancelScope()

    async def client() -> None:
        with scope:
            while True:
                runtime.requests.add("stat", 1)
                await trio.sleep(GC_LOOK_SECONDS / 4)

    nursery.start_soon(client)
    return scope


async def test_workers_let_requests_that_stream_in_go_first(
    runtime: Runtime, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scope = stream(runtime, nursery)
    await delete_unheld(runtime, 10)
    await trio.sleep(BEFORE_THE_END)
    assert done(runtime) == 0
    scope.cancel()


async def test_workers_stand_back_for_a_bounded_time(
    runtime: Runtime, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scope = stream(runtime, nursery)
    await delete_unheld(runtime, 10)
    await trio.sleep(AFTER_THE_END)
    assert done(runtime) == 10
    scope.cancel()


async def test_workers_begin_when_requests_pause(
    runtime: Runtime, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    scope = stream(runtime, nursery)
    await delete_unheld(runtime, 10)
    await trio.sleep(GC_DELAY_SECONDS + GC_LOOK_SECONDS)
    assert done(runtime) == 0
    scope.cancel()
    await trio.sleep(2 * GC_LOOK_SECONDS)
    assert done(runtime) == 10


def a_push(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    runtime.workers.push()


def a_long_backlog(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(cleanup, "GC_STAND_BACK_INODES", 9)


def little_memory(runtime: Runtime, patch: pytest.MonkeyPatch) -> None:
    runtime.store.memory.set_limit(runtime.store.memory.used)


@pytest.mark.parametrize("press", [a_push, a_long_backlog, little_memory])
async def test_workers_do_not_stand_back_when_cleanup_is_waited_for(
    press: Callable[[Runtime, pytest.MonkeyPatch], None],
    runtime: Runtime,
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scope = stream(runtime, nursery)
    await delete_unheld(runtime, 10)
    press(runtime, monkeypatch)
    await trio.sleep(BEFORE_THE_END)
    assert done(runtime) > 0
    scope.cancel()
