import pytest
import trio
import trio.testing

from deferfs.mount.readers import ReaderLock


@pytest.fixture
async def lock():  # type: ignore[no-untyped-def]
    made = ReaderLock()
    trio.lowlevel.add_instrument(made)
    yield made
    trio.lowlevel.remove_instrument(made)


async def test_who_takes_it_back_at_once_keeps_it(lock: ReaderLock, nursery: trio.Nursery) -> None:
    order: list[str] = []

    async def other() -> None:
        async with lock:
            order.append("other")

    async with lock:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
    async with lock:
        order.append("first again")
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert order == ["first again", "other"]


async def test_it_is_handed_on_when_its_holder_waits_elsewhere(lock: ReaderLock, nursery: trio.Nursery) -> None:
    got = trio.Event()

    async def other() -> None:
        async with lock:
            got.set()

    async with lock:
        nursery.start_soon(other)
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await got.wait()


async def test_one_after_the_other(lock: ReaderLock) -> None:
    inside = 0
    turns = 0

    async def reader() -> None:
        nonlocal inside, turns
        for _ in range(20):
            async with lock:
                inside += 1
                assert inside == 1
                await trio.lowlevel.checkpoint()
                inside -= 1
                turns += 1
            await trio.lowlevel.checkpoint()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(reader)
    assert turns == 100


async def test_who_gives_up_waiting_is_passed_over(lock: ReaderLock, nursery: trio.Nursery) -> None:
    got = trio.Event()

    async def impatient(scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                pytest.fail("it was cancelled")

    async def patient() -> None:
        async with lock:
            got.set()

    scope = trio.CancelScope()
    async with lock:
        nursery.start_soon(impatient, scope)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(patient)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(5):
        await got.wait()
