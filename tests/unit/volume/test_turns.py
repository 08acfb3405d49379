"""When a transaction of cleanup begins, and when others run before the next one."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from deferfs.errors import FsError
from deferfs.limits import GC_PACE_LOOK_SECONDS, GC_PASSES_MAX, TURN_NS, WAITED_TURNS
from deferfs.store.commit import commit
from deferfs.volume.driver import Driver
from deferfs.volume.turns import Turns
from deferfs.volume.waits import Paced, Reschedule, Task
from tests.unit.volumes import fresh_driver, make, unlink

NS = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 1000 * NS

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driver(clock: Clock) -> Driver:
    driver = fresh_driver()
    driver.engine.now_ns = driver.engine.turns.pace.clock = clock
    return driver


@pytest.fixture
def turns(driver: Driver) -> Turns:
    return driver.engine.turns


def passes(task: Task[None]) -> int:
    """How often it lets others run."""
    found = list(task)
    assert all(type(wait) is Reschedule for wait in found)
    return len(found)


# --- turns ---
@pytest.mark.parametrize(("background", "turn_ns"), [(True, TURN_NS), (False, WAITED_TURNS * TURN_NS)])
def test_a_turn_ends_when_it_has_lasted_long_enough(background: bool, turn_ns: int, turns: Turns, clock: Clock) -> None:
    assert passes(turns.end(background=background)) == 1  # nothing has run for long
    for _ in range(3):
        clock.now += turn_ns // 4
        assert passes(turns.end(background=background)) == 0
    clock.now += turn_ns // 4
    assert passes(turns.end(background=background)) == 1
    clock.now += TURN_NS // 2
    assert passes(turns.end(background=True)) == 0


@pytest.mark.parametrize(("background", "turn_ns"), [(True, TURN_NS), (False, WAITED_TURNS * TURN_NS)])
@pytest.mark.parametrize(("percent", "in_a_turn"), [(90, 1), (40, 2), (20, 5), (300, 1)])
def test_a_turn_is_no_longer_than_a_single_transaction_may_make_it(
    percent: int, in_a_turn: int, background: bool, turn_ns: int, turns: Turns, clock: Clock
) -> None:
    passes(turns.end(background=background))
    ends = []
    for _ in range(10):
        clock.now += turn_ns * percent // 100
        ends.append(passes(turns.end(background=background)))
    assert ends == [0 if (number + 1) % in_a_turn else 1 for number in range(10)]


def test_in_the_background_requests_need_not_wait_for_the_end_of_a_turn(turns: Turns) -> None:
    passes(turns.end(background=True))
    turns.requests_queued = lambda: True
    assert passes(turns.end(background=False)) == 0
    assert passes(turns.end(background=True)) == GC_PASSES_MAX


def test_nor_does_a_commit(turns: Turns, driver: Driver) -> None:
    passes(turns.end(background=True))
    make(driver, b"file")
    job = commit(driver.volume.store.journal, 1)
    next(job)
    assert passes(turns.end(background=False)) == 0
    assert passes(turns.end(background=True)) == 1
    job.close()


def test_others_run_until_no_request_is_queued(turns: Turns) -> None:
    left = [True, True, False]
    turns.requests_queued = lambda: left.pop(0)
    assert passes(turns.end(background=False)) == 3
    assert not left


def test_a_turn_begins_when_others_have_run(turns: Turns, clock: Clock) -> None:
    task = turns.end(background=False)
    next(task)
    clock.now += 10 * TURN_NS
    assert list(task) == []
    assert passes(turns.end(background=False)) == 0


def deleted_and_unreadable(driver: Driver, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Task[bool]:
    """A batch of six inactivations that fail after 0.4 of a turn each."""
    for number in range(6):
        make(driver, b"%d" % number)
        unlink(driver, b"%d" % number)

    def operation(op: object, *, reserve: bool) -> Task[bool]:
        clock.now += TURN_NS * 4 // 10
        yield from ()
        raise FsError(errno.EIO, "unreadable")

    monkeypatch.setattr(driver.engine, "operation", operation)
    return driver.engine.cleanup.run_batch()


def past_eof(driver: Driver, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Task[None]:
    """Six files to trim, which takes 0.4 of a turn each."""
    eviction = driver.engine.eviction
    for ino in range(6):
        eviction.to_trim[ino, 1] = None

    def operation(op: object, *, reserve: bool) -> Task[bool]:
        clock.now += TURN_NS * 4 // 10
        yield from ()
        return True

    monkeypatch.setattr(driver.engine, "operation", operation)
    return eviction.trim_queued()


@pytest.mark.parametrize("work", [deleted_and_unreadable, past_eof])
def test_a_turn_ends_among_failures_and_trims_too(
    work: Callable[[Driver, Clock, pytest.MonkeyPatch], Task[object]],
    driver: Driver,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lasted, since = [], clock.now
    for wait in work(driver, clock, monkeypatch):
        if type(wait) is Reschedule:
            lasted.append(clock.now - since)
            since = clock.now
    assert len(lasted) == 3
    assert max(lasted) <= TURN_NS


# --- the pace ---
def spend(turns: Turns) -> None:
    turns.pace.set_rate(10)
    for _ in range(2):
        turns.pace.spend()


def test_without_a_rate_a_transaction_begins_at_once(turns: Turns) -> None:
    assert [wait.over() for wait in turns.keep_pace()] == [True]


def test_a_transaction_waits_until_the_pace_allows_it(turns: Turns, clock: Clock) -> None:
    spend(turns)
    looks = 0
    for wait in turns.keep_pace():
        assert isinstance(wait, Paced)
        assert not wait.over()
        assert 0 < wait.seconds_max <= GC_PACE_LOOK_SECONDS
        looks += 1
        clock.now += round(wait.seconds_max * NS)
    assert looks == 2  # 0.1 s


def test_waking_too_early_does_no_harm(turns: Turns) -> None:
    spend(turns)
    task = turns.keep_pace()
    for _ in range(5):
        assert not next(task).over()


def waited_for(driver: Driver) -> None:
    driver.engine.cleanup.hasten()


def memory_short(driver: Driver) -> None:
    driver.volume.store.memory.set_limit(driver.volume.store.memory.used)


def stopped(driver: Driver) -> None:
    driver.drive(driver.engine.cleanup.stop())


@pytest.mark.parametrize("press", [waited_for, memory_short, stopped])
def test_cleanup_does_not_wait_when_it_is_wanted_or_stopped(
    press: Callable[[Driver], None], turns: Turns, driver: Driver
) -> None:
    spend(turns)
    task = turns.keep_pace()
    wait = next(task)
    press(driver)
    assert wait.over()
    assert list(task) == []


@pytest.mark.parametrize(("background", "last", "waits"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_after_a_transaction_the_next_one_of_the_background_keeps_the_pace(
    background: bool, last: bool, waits: int, turns: Turns, clock: Clock
) -> None:
    turns.pace.set_rate(5)
    found = []
    for wait in turns.step_done(background=background, last=last):
        found.append(wait)
        clock.now += NS
    assert [type(wait) for wait in found] == [Reschedule] + [Paced] * waits


def test_every_transaction_of_the_background_counts(turns: Turns) -> None:
    turns.pace.set_rate(5)
    assert turns.pace.wait_ns() == 0
    list(turns.step_done(background=False, last=True))
    assert turns.pace.wait_ns() == 0
    list(turns.step_done(background=True, last=True))
    assert turns.pace.wait_ns() == NS // 10  # less the credit of a tenth of a second
    next(turns.step_done(background=True, last=False), None)
    assert turns.pace.wait_ns() == NS * 3 // 10


def test_the_synchronous_driver_lets_the_time_pass() -> None:
    driver = fresh_driver()
    turns = driver.engine.turns
    spend(turns)
    left_ns = turns.pace.wait_ns()
    driver.drive(turns.keep_pace())
    assert left_ns <= driver.waited_ns < left_ns + 10
