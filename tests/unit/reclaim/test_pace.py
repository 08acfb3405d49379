"""The pace of the cleanup: a bound on transactions over any span of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deferfs.limits import PACE_BURST_NS
from deferfs.reclaim import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000_000_000

    def __call__(self) -> int:
        return self.now


def test_a_pace_without_a_rate_never_waits() -> None:
    pace = Pace(Clock())
    for _ in range(100):
        pace.spend()
        assert pace.wait_ns() == 0
    assert pace.batch(64) == 64


@given(
    rate=st.floats(0.1, 100_000),
    pauses=st.lists(st.integers(0, 3 * PACE_BURST_NS), max_size=60),
)
def test_a_pace_allows_the_rate_and_one_burst_over_any_time(rate: float, pauses: list[int]) -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.set_rate(rate)
    begun: list[int] = []
    for pause in pauses:
        clock.now += pause
        for _ in range(3):
            clock.now += pace.wait_ns()
            begun.append(clock.now)
            pace.spend()
    for first, start in enumerate(begun):
        for last in range(first, len(begun)):
            span = (begun[last] - start + PACE_BURST_NS) / 1e9
            assert last - first + 1 <= rate * span * (1 + 1e-6) + 1


def test_a_rate_is_used_in_full() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.set_rate(1000)
    start = clock.now
    for _ in range(5000):
        clock.now += pace.wait_ns()
        pace.spend()
    assert 4.8 <= (clock.now - start) / 1e9 <= 5


def test_early_transactions_are_made_up_for_and_a_new_rate_starts_over() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.set_rate(10)
    for _ in range(30):
        pace.spend()
    assert pace.wait_ns() > 2.5e9
    pace.set_rate(20)
    assert pace.wait_ns() == 0


def test_a_batch_is_no_longer_than_a_burst() -> None:
    pace = Pace(Clock())
    for rate, most in ((0.1, 1), (10, 1), (100, 10), (1e6, 64)):
        pace.set_rate(rate)
        assert pace.batch(64) == most
