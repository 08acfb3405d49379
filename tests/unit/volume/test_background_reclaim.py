"""Background reclaim by itself: how long its turns last. When it is due, and where it ends, crash exploration tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deferfs.limits import INODE_COST_BYTES, TURN_NS, WAITED_TURNS
from deferfs.store.pump import Pump
from deferfs.volume.background_reclaim import PIECE_BYTES, WAITING_PIECE_BYTES
from deferfs.volume.driver import Driver
from deferfs.volume.shortage import reclaim_goal
from deferfs.volume.waits import EntriesDropped, Reschedule, Task, Wait
from tests.unit.volumes import fresh_driver, make, settle


@pytest.mark.parametrize(
    ("evict", "piece_bytes", "turn_ns"),
    [("deferred", PIECE_BYTES, TURN_NS), ("inline", WAITING_PIECE_BYTES, WAITED_TURNS * TURN_NS)],
)
@pytest.mark.parametrize(("percent", "in_a_turn"), [(10, 10), (40, 2), (300, 1)])
def test_others_run_when_one_more_piece_would_make_a_turn_too_long(
    percent: int, in_a_turn: int, evict: str, piece_bytes: int, turn_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = fresh_driver(evict=evict)
    make(driver, b"file")
    engine, now, wanted = driver.engine, [0], list[int]()
    engine.now_ns = lambda: now[0]

    def reclaim(wanted_bytes: int) -> Task[int]:
        wanted.append(wanted_bytes)
        now[0] += turn_ns * percent // 100
        yield from ()
        return piece_bytes if len(wanted) < 40 else 0

    monkeypatch.setattr(engine.eviction, "background_reclaim", reclaim)
    monkeypatch.setattr(type(engine.store.memory), "used", property(lambda memory: 1 << 40))
    turns = [len(wanted) for wait in engine.reclaim.run() if isinstance(wait, Reschedule)]
    assert turns[0] == in_a_turn
    assert turns[1] - turns[0] == in_a_turn
    assert wanted == [piece_bytes] * len(wanted)


def known_to_the_kernel(driver: Driver, count: int) -> list[int]:
    """So many inodes that only FORGETs can free, and a budget of half of what is in use."""
    inodes = driver.volume.inodes
    settle(driver)
    driver.reclaim(1 << 40)
    first = 1000
    for ino in range(first, first + count):
        inodes.lookup(ino, 1)
    driver.engine.store.memory.set_limit(driver.engine.store.memory.used // 2)
    return list(range(first, first + count))


def answers(driver: Driver, drop: Callable[[int], None]) -> list[Wait]:
    """Run the task; all that it waits for. `drop` is what the kernel does, and it always says that it was asked."""
    waits = []
    running = Pump(driver.engine.reclaim.run())
    while (wait := running.resume()) is not None:
        waits.append(wait)
        if isinstance(wait, EntriesDropped):
            drop(wait.bytes_wanted)
            running.answer(wait.bytes_wanted)
        else:
            running.answer(None)
    return waits


def test_background_reclaim_ends_when_the_kernel_forgets_nothing() -> None:
    """An inode may be in use by the kernel, which then keeps it, however often it is asked."""
    driver = fresh_driver()
    known_to_the_kernel(driver, 500)
    waits = answers(driver, lambda bytes_wanted: None)
    assert sum(isinstance(wait, EntriesDropped) for wait in waits) == 1
    assert driver.engine.write_back.commit_asked


@pytest.mark.parametrize("at_once", [1000, 1])
def test_the_kernel_is_asked_for_no_more_than_is_missing(at_once: int) -> None:
    """FORGETs that wait to be counted (`at_once` is 1) are as good as counted."""
    driver = fresh_driver()
    left = known_to_the_kernel(driver, 2000)
    forgetting, memory = driver.engine.forgetting, driver.engine.store.memory
    forgetting.keeps, forgetting.at_once = True, at_once
    asked: list[int] = []

    def drop(bytes_wanted: int) -> None:
        count = min(100, -(-bytes_wanted // INODE_COST_BYTES))
        asked.append(count)
        message = [(left.pop(), 1) for _ in range(count)]
        forgetting.forget(message)

    answers(driver, drop)
    goal = reclaim_goal(memory)
    assert sum(asked) == -(-(2 * memory.limit_bytes - goal) // INODE_COST_BYTES)


def test_background_reclaim_goes_on_when_others_look_up_as_many_as_are_forgotten() -> None:
    """What counts is that the kernel forgets, not that fewer are in core."""
    driver = fresh_driver()
    left = known_to_the_kernel(driver, 500)
    asked: list[int] = []

    def drop(bytes_wanted: int) -> None:
        asked.append(bytes_wanted)
        if len(asked) <= 3:
            driver.engine.forgetting.forget([(left.pop(), 1)])
            driver.volume.inodes.lookup(5000 + len(asked), 1)

    answers(driver, drop)
    assert len(asked) == 4
