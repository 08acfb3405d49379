"""From the passes of a scenario to ratios with verdicts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from deferfs.measure.host.load import FOREIGN_FRACTION
from deferfs.measure.results import Comparison, Resampled
from deferfs.measure.scenario import PERCENTILES, Measure, Pass, Role, Side
from deferfs.measure.stats.statistics import PAIRS_MIN, Middle, enough_samples, judge, summarize_ratios

RESAMPLINGS: Final = 100
RESAMPLING_DRAWS: Final = 1000
"""Draws of the bootstrap in one resampling."""
VALUE: Final = "value"
BUSY_PAIRS_MAX: Final = 0.5
"""When a larger fraction of the pairs was disturbed by other programs, the rest is no fair sample."""


def is_busy(one: Pass) -> bool:
    """Whether other programs used the processors during the pass."""
    return one.foreign_cpu_fraction > FOREIGN_FRACTION


def value_of(one: Pass, measure: Measure) -> float | None:
    """The measure in one pass: ns, or the value of the counter; None when it has too few samples, or none."""
    if measure.statistic == VALUE:
        return one.seconds if measure.series == "seconds" else one.counters.get(measure.series)
    series = one.series.get(measure.series)
    if series is None or not enough_samples(series.latency.count, PERCENTILES[measure.statistic]):
        return None
    return float(series.latency.percentile(PERCENTILES[measure.statistic]))


def held_against(sides: Sequence[Side]) -> list[tuple[Side, Side]]:
    """Which sides are compared, as (numerator, denominator): inline with deferred, other filesystems with deferred,
    the floor with deferred and with inline. With several sides of a role, the first is compared with the first, and so
    on; one floor serves all. Without deferfs, the others are compared with the floor.
    """
    by_role: dict[Role, list[Side]] = {"inline": [], "deferred": [], "floor": [], "kernel": []}
    for side in sides:
        by_role[side.role].append(side)
    inline, deferred, floors = by_role["inline"], by_role["deferred"], by_role["floor"]
    pairs = list(zip(inline, deferred, strict=False))
    pairs += [(side, deferred[0]) for side in by_role["kernel"] if deferred]
    for subjects in (deferred, inline) if deferred or inline else (by_role["kernel"],):
        if floors:
            pairs += [(floors[min(place, len(floors) - 1)], side) for place, side in enumerate(subjects)]
    return pairs


def middle_for(measure: Measure) -> Middle:
    """The median for a maximum, which is one sample of a pass: one outlier in ten would dominate the mean of ratios."""
    return "median" if measure.statistic == "max" else "geometric mean"


def compare_all(measures: Sequence[Measure], sides: Sequence[Side], passes: Sequence[Pass]) -> list[Comparison]:
    """All comparisons for which there are passes."""
    loops = {one.loop for one in passes}
    there = {one.side for one in passes}
    return [
        compare(measure, numerator.name, denominator.name, passes)
        for numerator, denominator in held_against(sides)
        for measure in measures
        if measure.loop in loops and {numerator.name, denominator.name} <= there
    ]


def compare(measure: Measure, numerator: str, denominator: str, passes: Sequence[Pass]) -> Comparison:
    """Compare one measure of two sides, over the pairs in which both finished undisturbed by other programs."""
    by_pair: dict[int, dict[str, Pass]] = {}
    for one in passes:
        if one.loop == measure.loop and one.side in (numerator, denominator):
            by_pair.setdefault(one.pair, {})[one.side] = one
    pairs = [(both[numerator], both[denominator]) for _, both in sorted(by_pair.items()) if len(both) == 2]
    finished = [pair for pair in pairs if all(one.outcome == "finished" for one in pair)]
    quiet = [pair for pair in finished if not any(map(is_busy, pair))]
    values = [(value_of(above, measure), value_of(below, measure)) for above, below in quiet]
    known = [(above, below) for above, below in values if above is not None and below is not None]
    ratio = summarize_ratios([above for above, _ in known], [below for _, below in known], middle_for(measure))
    verdict, direction = judge(ratio, len(ratio.pairs) if ratio else 0)
    busy = len(finished) - len(quiet)
    if busy and (busy > BUSY_PAIRS_MAX * len(finished) or len(quiet) < PAIRS_MIN <= len(finished)):
        verdict, direction = "machine too busy", 0
    return Comparison(
        measure=measure,
        numerator=numerator,
        denominator=denominator,
        ratio=ratio,
        verdict=verdict,
        faster={1: denominator, -1: numerator, 0: ""}[direction],
        pairs_used=len(ratio.pairs) if ratio else 0,
        pairs_busy=busy,
        pairs_unfinished=len(pairs) - len(finished),
    )


def resample(measure: Measure, passes: Sequence[Pass], seed: int) -> Resampled:
    """Pair the passes of one side with each other at random, `RESAMPLINGS` times, and judge each time."""
    values = [
        value
        for one in passes
        if one.loop == measure.loop and one.outcome == "finished" and (value := value_of(one, measure)) is not None
    ]
    chance = random.Random(seed)
    even = told = 0
    for round_ in range(RESAMPLINGS if len(values) >= 2 * PAIRS_MIN else 0):
        chance.shuffle(values)
        half = len(values) // 2
        ratio = summarize_ratios(
            values[:half], values[half : 2 * half], middle_for(measure), seed=seed + round_, draws=RESAMPLING_DRAWS
        )
        verdict, _ = judge(ratio, half)
        told += 1
        even += verdict == "no difference"
    return Resampled(measure, even, told)
