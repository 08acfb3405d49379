"""What a soak makes of the daemon's statistics."""

from __future__ import annotations

import pytest

from deferfs.measure.soak.watching import GROWTH_MINUTES_MIN, judge_throttle
from tests.statistics_sample import sample

LONG = 60 * GROWTH_MINUTES_MIN


@pytest.mark.parametrize(
    ("seconds", "throttled", "waiting", "kept"),
    [
        (9, 0, 0, None),
        (9, 1, 0, True),
        (9, 0, 1, False),
        (LONG, 0, 0, False),
        (LONG, 1, 0, True),
        (LONG, 1, 1, False),
    ],
)
def test_a_short_soak_need_not_throttle_a_delete(
    seconds: float, throttled: int, waiting: int, kept: bool | None
) -> None:
    end = sample(
        waits={"throttle": {"count": throttled, "total_ns": 0, "max_ns": 0, "log2_ns": {}}},
        throttle={"waiting": waiting},
    )
    assert judge_throttle(seconds, end).kept is kept
