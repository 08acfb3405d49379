"""Ratios pair by pair, their middle with a 95 % interval, and the resulting verdict.

Two consecutive passes share the state of the machine, so their ratio says more than either number. A summary keeps
every pair. The middle of ratios is their geometric mean, because ratios multiply; that of ratios of maxima is their
median, because one maximum is one sample.

The interval is that of the bootstrap over pairs: the pairs are resampled with replacement, `DRAWS` times, from a seed.
As few pairs make the percentile interval too narrow, its percentiles are those that make it as wide as Student's t
would (the expanded percentile interval: T. Hesterberg, What Teachers Should Know About the Bootstrap, The American
Statistician 69(4), 2015).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from statistics import NormalDist, median
from typing import Final, Literal

import msgspec

CLEAR: Final = 1.05
"""A ratio nearer to 1 than this counts as no difference, however narrow its interval."""
PAIRS_MIN: Final = 6
"""Pairs that a verdict needs: six on the same side by chance have a probability of 2 in 2^6, less than 5 %."""
BEYOND_MIN: Final = 10
"""A percentile is reported when at least so many samples lie beyond it: p50 of 20 samples, p99 of 1,000."""
DRAWS: Final = 2000
CONFIDENCE: Final = 0.95
SEED: Final = 20_260

Verdict = Literal["faster", "no difference", "not enough samples", "machine too busy"]
Middle = Literal["geometric mean", "median"]


class RatioSummary(msgspec.Struct, frozen=True):
    """Ratios of one measure over all pairs, in order of the pairs; their middle, and its 95 % interval from `low` to
    `high`.
    """

    pairs: list[float]
    middle: float
    low: float
    high: float
    middle_is: Middle = "geometric mean"


def ratio(numerator: float, denominator: float) -> float:
    """`numerator / denominator`, where 0 / 0 is 1 and anything else / 0 is infinite."""
    if denominator:
        return numerator / denominator
    return math.inf if numerator else 1.0


def enough_samples(count: int, percent: float) -> bool:
    """Whether `count` samples suffice for a percentile. One sample suffices for a maximum."""
    if percent >= 100:
        return count > 0
    beyond = min(percent, 100 - percent) / 100 * count
    return beyond >= BEYOND_MIN - 1e-9


def summarize_ratios(
    numerators: Sequence[float],
    denominators: Sequence[float],
    middle: Middle = "geometric mean",
    *,
    seed: int = SEED,
    draws: int = DRAWS,
) -> RatioSummary | None:
    """Pair `numerators` with `denominators` by position; None when there is no pair.

    Pairs without a finite positive ratio (exactly one of the two is 0) are left out.
    """
    pairs = [ratio(top, bottom) for top, bottom in zip(numerators, denominators, strict=True)]
    known = [value for value in pairs if math.isfinite(value) and value > 0]
    if not known:
        return None
    logarithms = [math.log(value) for value in known]
    of = median if middle == "median" else _mean
    low, high = bootstrap_interval(logarithms, of, seed=seed, draws=draws)
    return RatioSummary(known, math.exp(of(logarithms)), math.exp(low), math.exp(high), middle)


def summarize_unpaired(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = SEED, draws: int = DRAWS
) -> RatioSummary | None:
    """The ratio of the geometric means of two runs that did not alternate: each is resampled by itself.

    `pairs` is empty. None when one of the two has no positive value.
    """
    above = [math.log(value) for value in numerators if value > 0]
    below = [math.log(value) for value in denominators if value > 0]
    if not above or not below:
        return None
    chance = random.Random(seed)
    drawn = sorted(
        _mean(chance.choices(above, k=len(above))) - _mean(chance.choices(below, k=len(below))) for _ in range(draws)
    )
    low, high = _percentiles_of(drawn, min(len(above), len(below)))
    return RatioSummary([], math.exp(_mean(above) - _mean(below)), math.exp(low), math.exp(high))


def bootstrap_interval(
    values: Sequence[float],
    middle: Callable[[Sequence[float]], float],
    *,
    seed: int = SEED,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The 95 % interval of `middle` of `values`; the value itself when there is only one."""
    if len(values) == 1:
        return values[0], values[0]
    chance = random.Random(seed)
    drawn = sorted(middle(chance.choices(values, k=len(values))) for _ in range(draws))
    return _percentiles_of(drawn, len(values))


def _percentiles_of(drawn: Sequence[float], count: int) -> tuple[float, float]:
    """The ends of the expanded percentile interval, in sorted draws of the middle of `count` values."""
    tail = NormalDist().cdf(-math.sqrt(count / (count - 1)) * student_t(count - 1)) if count > 1 else 0.0
    position = min(int(tail * len(drawn)), (len(drawn) - 1) // 2)
    return drawn[position], drawn[-1 - position]


def student_t(freedom: int) -> float:
    """The quantile of Student's t for the 95 % interval, by the Cornish-Fisher expansion; below 4 degrees of freedom,
    where that is too small, so large that the interval contains all draws.
    """
    if freedom < 4:
        return 4.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + math.fsum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def judge(summary: RatioSummary | None, count: int) -> tuple[Verdict, int]:
    """The verdict on a ratio of `count` pairs, and for `faster`: 1 when the denominator is faster, -1 when the
    numerator is.
    """
    if summary is None or count < PAIRS_MIN:
        return "not enough samples", 0
    if summary.low > 1 and summary.middle > CLEAR:
        return "faster", 1
    if summary.high < 1 and summary.middle < 1 / CLEAR:
        return "faster", -1
    return "no difference", 0


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
