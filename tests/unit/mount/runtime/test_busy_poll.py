"""The time for which the next request is looked out for, on a clock that only moves when it is read."""

from collections.abc import Callable
from itertools import count

import pytest

from deferfs.mount.runtime.busy_poll import START_NS, BusyPoll

TICK_NS = 100
LIMIT_US = 50
LIMIT_NS = LIMIT_US * 1000


class Clock:
    """Each reading takes TICK_NS."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += TICK_NS
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def busy_poll(clock: Clock) -> BusyPoll:
    return BusyPoll(LIMIT_US, clock=clock, processors=lambda: 2)


def open_window(busy_poll: BusyPoll) -> None:
    """Requests come just too late for the window, until it is as long as it may become."""
    while busy_poll.window_ns < LIMIT_NS:
        busy_poll.waited(LIMIT_NS - 1)


def ready_after(times: int) -> Callable[[], bool]:
    asked = count(1)
    return lambda: next(asked) >= times


def test_polling_is_off_at_first(busy_poll: BusyPoll, clock: Clock) -> None:
    assert not busy_poll.look(lambda: pytest.fail("it asked"), clock())
    assert busy_poll.statistics().misses_total == 0


def test_the_window_grows_while_requests_come_soon(busy_poll: BusyPoll) -> None:
    windows = []
    for _ in range(6):
        busy_poll.waited(LIMIT_NS - 1)
        windows.append(busy_poll.window_ns)
    assert windows == [START_NS, 2 * START_NS, 4 * START_NS, 8 * START_NS, LIMIT_NS, LIMIT_NS]


def test_the_window_stays_when_requests_come_within_it(busy_poll: BusyPoll) -> None:
    busy_poll.waited(LIMIT_NS - 1)
    busy_poll.waited(START_NS)
    assert busy_poll.window_ns == START_NS


def test_the_window_closes_when_requests_do_not_come(busy_poll: BusyPoll) -> None:
    open_window(busy_poll)
    windows = []
    for _ in range(5):
        busy_poll.waited(LIMIT_NS + 1)
        windows.append(busy_poll.window_ns)
    assert windows == [25_000, 12_500, 6_250, 0, 0]


def test_a_mount_that_is_seldom_used_looks_for_less_than_two_windows_and_never_again(
    busy_poll: BusyPoll, clock: Clock
) -> None:
    open_window(busy_poll)
    for _ in range(1000):
        start = clock()
        assert not busy_poll.look(lambda: False, start)
        clock.now = start + 10 * LIMIT_NS
        busy_poll.waited(clock() - start)
    found = busy_poll.statistics()
    assert found.misses_total == 4
    assert found.spent_ns_total < 2 * LIMIT_NS


def test_a_hit_ends_the_look(busy_poll: BusyPoll, clock: Clock) -> None:
    open_window(busy_poll)
    assert busy_poll.look(ready_after(7), clock.now)
    found = busy_poll.statistics()
    assert (found.hits_total, found.misses_total, found.spent_ns_total) == (1, 0, 7 * TICK_NS)


def test_a_miss_ends_with_the_window(busy_poll: BusyPoll, clock: Clock) -> None:
    open_window(busy_poll)
    assert not busy_poll.look(lambda: False, clock.now)
    found = busy_poll.statistics()
    assert (found.hits_total, found.misses_total, found.spent_ns_total) == (0, 1, LIMIT_NS)


def test_a_request_that_comes_with_the_last_look_counts(busy_poll: BusyPoll, clock: Clock) -> None:
    open_window(busy_poll)
    assert busy_poll.look(ready_after(LIMIT_NS // TICK_NS), clock.now)


def test_polling_is_off_on_one_processor() -> None:
    busy_poll = BusyPoll(LIMIT_US, processors=lambda: 1)
    busy_poll.waited(LIMIT_NS - 1)
    assert busy_poll.window_ns == 0


def test_a_limit_of_zero_switches_it_off(busy_poll: BusyPoll) -> None:
    open_window(busy_poll)
    busy_poll.set_limit(0)
    assert busy_poll.window_ns == 0
    busy_poll.waited(1)
    assert busy_poll.window_ns == 0


def test_the_window_stays_within_a_changed_limit(busy_poll: BusyPoll) -> None:
    open_window(busy_poll)
    busy_poll.set_limit(3)
    for _ in range(3):
        busy_poll.waited(2_999)
        assert busy_poll.window_ns <= 3_000
    assert busy_poll.window_ns == 3_000
