"""Geometry of the plots on the page: pure arithmetic, from histograms and ratios to positions.

Bars and ratios are placed in percent of their width, so that they keep the size of their text on any screen;
distributions are SVG, in units of about a pixel on a small screen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from deferfs.measure.report.wording import latency
from deferfs.measure.stats.histogram import Histogram

WIDTH: Final = 340
HEIGHT: Final = 210
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 8, 34
LABEL_GAP: Final = 11
"""Minimum distance of two labels, in units of the plot."""
STEPS: Final = (1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 300, 1000, 10_000)
REACH_MAX: Final = 1000.0
"""Ratios beyond are drawn at the edge: one outlier must not squeeze all others."""
TICK_GAP: Final = 12.0
"""Minimum distance of two ticks, in percent."""


class Tick(msgspec.Struct, frozen=True):
    """A grid line at `at` with its text."""

    at: float
    text: str


class LogAxis(msgspec.Struct, frozen=True):
    """A logarithmic axis of latencies, in percent of its length."""

    low: float
    high: float
    ticks: list[Tick]

    def at(self, nanoseconds: float) -> float:
        """The position of a latency: 0 to 100."""
        part = (math.log10(max(nanoseconds, 1.0)) - self.low) / (self.high - self.low)
        return 100 * min(max(part, 0.0), 1.0)


class Curve(msgspec.Struct, frozen=True):
    """A distribution: the SVG path, and the positions of its maximum and its label."""

    name: str
    path: str
    end_x: float
    end_y: float
    label_y: float
    text: str


class Distribution(msgspec.Struct, frozen=True):
    """Latency (upward, logarithmic) by percentile (to the right, each nine with the same width) of one side: a thin
    curve for each pair, and a thick one for all together.
    """

    x_ticks: list[Tick]
    y_ticks: list[Tick]
    pairs: list[Curve]
    pooled: Curve


def log_axis(values: Sequence[float]) -> LogAxis:
    """An axis with whole decades that contains all `values` (ns)."""
    positive = [value for value in values if value > 0] or [1.0]
    low = math.floor(math.log10(min(positive)))
    high = max(math.ceil(math.log10(max(positive))), low + 1)
    axis = LogAxis(low, high, [])
    return LogAxis(low, high, [Tick(axis.at(10.0**power), latency(10.0**power)) for power in range(low, high + 1)])


def bar_axis(values: Sequence[float]) -> LogAxis:
    """As `log_axis`, with enough space for the smallest bar to be visible."""
    positive = [value for value in values if value > 0] or [1.0]
    return log_axis([*positive, min(positive) / 2])


def ratio_axis(values: Sequence[float]) -> tuple[Callable[[float], float], list[Tick]]:
    """A logarithmic axis with 1 in the middle: a function for the position of a ratio, in percent, and the ticks."""
    reach = min(max([1.5, *(max(value, 1 / value) for value in values if value > 0)]) * 1.05, REACH_MAX)

    def place(value: float) -> float:
        part = math.log10(min(max(value, 1 / reach), reach)) / math.log10(reach)
        return 50 + 50 * part

    ticks, reached = [Tick(50.0, "1x")], 50.0
    for step in STEPS:
        if step <= reach and place(step) - reached >= TICK_GAP:
            reached = place(step)
            ticks += [Tick(reached, f"{step:g}x"), Tick(100 - reached, f"1/{step:g}")]
    return place, sorted(ticks, key=lambda tick: tick.at)


def distributions(sides: Mapping[str, Sequence[tuple[int, Histogram]]]) -> dict[str, Distribution]:
    """One plot for each side, all with the same axes: side -> (pair, histogram)."""
    from deferfs.measure.stats.histogram import merge

    pooled = {side: merge(histogram for _, histogram in passes) for side, passes in sides.items()}
    known = {side: histogram for side, histogram in pooled.items() if histogram.count}
    if not known:
        return {}
    nines = max(1.0, *(math.log10(histogram.count) for histogram in known.values()))
    axis = log_axis([value for h in known.values() for value in (h.percentile(1), h.max_ns)])

    def x(exceedance: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * -math.log10(exceedance) / nines

    def y(nanoseconds: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis.at(nanoseconds) / 100

    def curve(name: str, histogram: Histogram) -> Curve:
        points = [(x(fraction), y(value)) for value, fraction in histogram.exceedance()]
        end_x, end_y = points[-1]
        return Curve(name, _path(points), end_x, end_y, end_y, latency(histogram.max_ns))

    x_ticks = [
        Tick(x(1 - percent / 100), f"{percent:g}")
        for percent in (0, 50, 90, 99, 99.9, 99.99, 99.999)
        if -math.log10(1 - percent / 100) <= nines + 1e-9
    ]
    y_ticks = [Tick(y(10.0**power), latency(10.0**power)) for power in range(int(axis.low), int(axis.high) + 1)]
    return {
        side: Distribution(
            x_ticks,
            y_ticks,
            _spread_labels([curve(str(pair), histogram) for pair, histogram in sides[side] if histogram.count]),
            curve("all pairs", histogram),
        )
        for side, histogram in known.items()
    }


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A polyline through `points`, without those that would move it by less than half a unit."""
    kept = [points[0]]
    for point in points[1:-1]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= 0.5:
            kept.append(point)
    kept.append(points[-1])
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in kept)


def _spread_labels(curves: Sequence[Curve]) -> list[Curve]:
    """Move overlapping labels apart, keeping their order, within the plot."""
    ordered = sorted(curves, key=lambda curve: curve.end_y)
    places: list[float] = []
    for one in ordered:
        places.append(max(one.end_y, places[-1] + LABEL_GAP) if places else one.end_y)
    over = places[-1] - (HEIGHT - BOTTOM) if places else 0.0
    if over > 0:
        ceiling = float(HEIGHT - BOTTOM)
        for position in range(len(places) - 1, -1, -1):
            places[position] = min(places[position], ceiling)
            ceiling = places[position] - LABEL_GAP
    return [msgspec.structs.replace(one, label_y=place) for one, place in zip(ordered, places, strict=True)]
