import pytest
import trio
import trio.testing

from deferfs.mount.runtime.pulse import Pulse


async def test_a_beat_wakes_those_that_wait_and_no_others(nursery: trio.Nursery) -> None:
    pulse = Pulse()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await pulse.wait()
        woken.append(number)

    pulse.beat()
    for number in range(3):
        nursery.start_soon(wait, number)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == []
    pulse.beat()
    nursery.start_soon(wait, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(woken) == [0, 1, 2]
    pulse.beat()
    await trio.testing.wait_all_tasks_blocked()
    assert 3 in woken


async def test_once_set_it_lets_all_pass_until_it_is_cleared(nursery: trio.Nursery) -> None:
    pulse = Pulse()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await pulse.wait()
        woken.append(number)

    nursery.start_soon(wait, 0)
    await trio.testing.wait_all_tasks_blocked()
    pulse.set()
    pulse.clear()  # what was asked for before is not lost
    await trio.testing.wait_all_tasks_blocked()
    assert woken == [0]
    pulse.set()
    await wait(1)
    pulse.clear()
    nursery.start_soon(wait, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert woken == [0, 1]
    pulse.set()


@pytest.mark.parametrize("is_set", [False, True])
async def test_a_wait_is_a_checkpoint_set_or_not(is_set: bool) -> None:
    pulse = Pulse()
    if is_set:
        pulse.set()
    with trio.CancelScope() as scope:
        scope.cancel()
        await pulse.wait()
    assert scope.cancelled_caught
