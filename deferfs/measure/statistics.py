"""Ratios pair by pair, their geometric mean and their spread.

Two runs that follow each other share the state of the machine, so their ratio says more than
either number. A summary keeps every pair; its middle is the geometric mean, because ratios
multiply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

CLEAR: Final = 1.05
"""A ratio counts as a difference when even its least favourable pair lies this far from 1."""


class RatioSummary(msgspec.Struct, frozen=True):
    """Ratios of one measure over all pairs, in order of the pairs; `geomean`, `low` and `high` sum
    them up.
    """

    pairs: list[float]
    geomean: float
    low: float
    high: float


def ratio(numerator: float, denominator: float) -> float:
    """`numerator / denominator`, where nothing compared with nothing is 1 and something with
    nothing infinite.
    """
    if denominator:
        return numerator / denominator
    return math.inf if numerator else 1.0


def geometric_mean(values: Sequence[float]) -> float:
    """The geometric mean of positive values; 0 when one of them is 0, NaN when there are none."""
    if not values:
        return math.nan
    if any(value == 0 for value in values):
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))


def summarize_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> RatioSummary | None:
    """Pair `numerators` with `denominators` by position; None when there is no pair.

    Pairs that cannot be told (the denominator is 0 and the numerator is not) are left out.
    """
    pairs = [ratio(top, bottom) for top, bottom in zip(numerators, denominators, strict=True)]
    finite = [value for value in pairs if math.isfinite(value)]
    if not finite:
        return None
    return RatioSummary(finite, geometric_mean(finite), min(finite), max(finite))
