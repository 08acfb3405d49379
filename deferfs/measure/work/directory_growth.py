"""Does an entry cost the same in a directory of a million as in one of a thousand?

One directory grows to its full size. At regular steps of its growth a new directory of 1,000 entries is made beside it,
and compared with the next 1,000 entries of the large one: two consecutive times, on a machine and a filesystem in the
same state.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from deferfs.measure.stats.statistics import RatioSummary, summarize_ratios

BATCH: Final = 1000
STEPS: Final = 20


class Growth(msgspec.Struct, frozen=True):
    """Seconds for one entry: in `small` directories and in the `large` one, step by step.

    `ratio` is large/small pair by pair, `late` the same for the last half of the growth; `overall`
    the mean of all entries of the large directory divided by that of the small ones.
    """

    entries: int
    small: list[float]
    large: list[float]
    ratio: RatioSummary
    late: RatioSummary
    overall: float


def measure_growth(root: Path, entries: int, tell: Callable[[str], None]) -> Growth:
    """Make a directory of `entries` entries (a multiple of 20,000) and the small ones beside it."""
    large_directory = f"{root}/large"
    os.mkdir(large_directory)
    small: list[float] = []
    large: list[float] = []
    spent = 0.0
    step = entries // STEPS
    for number in range(STEPS):
        first = number * step
        spent += create_entries(large_directory, first, step - BATCH)
        small_directory = f"{root}/small{number:02d}"
        os.mkdir(small_directory)
        small.append(create_entries(small_directory, 0, BATCH) / BATCH)
        large.append(create_entries(large_directory, first + step - BATCH, BATCH) / BATCH)
        spent += large[-1] * BATCH
        tell(f"{first + step:,} entries")
    ratio = summarize_ratios(large, small)
    late = summarize_ratios(large[STEPS // 2 :], small[STEPS // 2 :])
    assert ratio is not None
    assert late is not None
    overall = spent / entries / (sum(small) / len(small))
    return Growth(entries, small, large, ratio, late, overall)


def create_entries(directory: str, first: int, count: int) -> float:
    """Seconds to create `count` empty files, named by their numbers."""
    start = time.monotonic()
    for index in range(first, first + count):
        os.close(os.open(f"{directory}/f{index:07d}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    return time.monotonic() - start
