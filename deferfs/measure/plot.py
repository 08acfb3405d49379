"""Geometry of the plots on the page: pure arithmetic, from histograms and ratios to SVG
coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from deferfs.measure.histogram import Histogram
from deferfs.measure.statistics import CLEAR, RatioSummary
from deferfs.measure.wording import latency, spread

WIDTH: Final = 460
HEIGHT: Final = 270
LEFT, RIGHT, TOP, BOTTOM = 58, 92, 12, 40
LABEL_GAP: Final = 13
"""Least distance of two labels, in the units of the plot."""
FOREST_WIDTH: Final = 720
FOREST_LEFT, FOREST_RIGHT = 150, 130
FOREST_ROW: Final = 20
FOREST_TOP: Final = 30
FOREST_STEPS: Final = (1.1, 1.2, 1.5, 2, 3, 5, 10, 30, 100, 300, 1000)
TICK_GAP: Final = 40
"""Least distance of two ticks on the axis of ratios."""


class Tick(msgspec.Struct, frozen=True):
    """A grid line at `at` with its text."""

    at: float
    text: str


class Curve(msgspec.Struct, frozen=True):
    """A distribution: the SVG path, and where its maximum and the label of that lie."""

    mode: str
    path: str
    end_x: float
    end_y: float
    label_y: float
    label: str


class Distribution(msgspec.Struct, frozen=True):
    """Latency (upward, logarithmic) by percentile (to the right, each nine the same width)."""

    title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    single: list[Curve]
    """One faint curve for each run."""
    pooled: list[Curve]
    """One strong curve for all runs of a mode."""


class ForestRow(msgspec.Struct, frozen=True):
    """A ratio with its spread: a dot, a line from the least to the most, a tick for each pair."""

    group: str
    label: str
    y: float
    low: float
    high: float
    middle: float
    pairs: list[float]
    text: str
    verdict: str
    """`faster` when every pair says that the candidate is faster, `slower`, or `even`."""


class Forest(msgspec.Struct, frozen=True):
    """Ratios one under the other on a logarithmic axis; `one` is where they are equal."""

    height: float
    one: float
    ticks: list[Tick]
    rows: list[ForestRow]


def distribution(
    title: str, pooled: Mapping[str, Histogram], single: Sequence[tuple[str, Histogram]]
) -> Distribution | None:
    """The plot of one probe: `pooled` by mode, and `single` runs as (mode, histogram). None
    without samples.
    """
    known = {mode: histogram for mode, histogram in pooled.items() if histogram.count}
    if not known:
        return None
    nines = max(math.log10(histogram.count) for histogram in known.values())
    nines = max(nines, 1.0)
    low = math.floor(math.log10(max(1, min(h.percentile(1) for h in known.values()))) * 2) / 2
    high = math.ceil(math.log10(max(10, *(h.max_ns for h in known.values()))) * 4) / 4
    high = max(high, low + 1)

    def x(exceedance: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * -math.log10(exceedance) / nines

    def y(nanoseconds: float) -> float:
        part = (math.log10(max(nanoseconds, 1)) - low) / (high - low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(part, 0.0), 1.0)

    def curve(mode: str, histogram: Histogram) -> Curve:
        points = [(x(fraction), y(value)) for value, fraction in histogram.exceedance()]
        return Curve(
            mode,
            _path(points),
            points[-1][0],
            points[-1][1],
            points[-1][1],
            latency(histogram.max_ns),
        )

    return Distribution(
        title=title,
        x_ticks=[
            Tick(x(1 - percent / 100), f"{percent:g}")
            for percent in (0, 50, 90, 99, 99.9, 99.99, 99.999)
            if -math.log10(1 - percent / 100) <= nines + 1e-9
        ],
        y_ticks=[Tick(y(10.0**power), latency(10.0**power)) for power in range(math.ceil(low), math.floor(high) + 1)],
        single=[curve(mode, histogram) for mode, histogram in single if histogram.count],
        pooled=_spread_labels([curve(mode, histogram) for mode, histogram in known.items()]),
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Straight lines through `points`, leaving out those that would not move the line by half a
    unit.
    """
    kept = [points[0]]
    for point in points[1:-1]:
        if abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= 0.5:
            kept.append(point)
    kept.append(points[-1])
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in kept)


def _spread_labels(curves: Sequence[Curve]) -> list[Curve]:
    """Move labels apart that would lie on each other, keeping their order."""
    ordered = sorted(curves, key=lambda curve: curve.end_y)
    placed: list[Curve] = []
    for curve in ordered:
        at = curve.end_y if not placed else max(curve.end_y, placed[-1].label_y + LABEL_GAP)
        placed.append(msgspec.structs.replace(curve, label_y=at))
    return placed


def forest(ratios: Mapping[str, Mapping[str, RatioSummary]]) -> Forest | None:
    """The plot of ratios by group (probe) and label (percentile). None when there is no ratio."""
    summaries = [s for row in ratios.values() for s in row.values() if s.low > 0]
    if not summaries:
        return None
    reach = max(1.5, *(max(s.high, 1 / s.low) for s in summaries))
    scale = math.log10(reach)

    def x(value: float) -> float:
        part = math.log10(value) / scale
        return FOREST_LEFT + (FOREST_WIDTH - FOREST_LEFT - FOREST_RIGHT) * (part + 1) / 2

    rows: list[ForestRow] = []
    y = float(FOREST_TOP)
    for group, row in ratios.items():
        first = True
        for label, summary in row.items():
            if summary.low <= 0:
                continue
            rows.append(_forest_row(group if first else "", label, y, summary, x))
            first = False
            y += FOREST_ROW
        y += FOREST_ROW / 2
    y -= FOREST_ROW / 2
    ticks = [Tick(x(1.0), "1x")]
    reached = x(1.0)
    for step in FOREST_STEPS:
        if step <= reach and x(step) - reached >= TICK_GAP:
            reached = x(step)
            ticks += [Tick(reached, f"{step:g}x"), Tick(x(1 / step), f"1/{step:g}")]
    return Forest(height=y, one=x(1.0), ticks=ticks, rows=rows)


def _forest_row(group: str, label: str, y: float, summary: RatioSummary, x: Callable[[float], float]) -> ForestRow:
    verdict = "faster" if summary.low > CLEAR else "slower" if summary.high < 1 / CLEAR else "even"
    return ForestRow(
        group=group,
        label=label,
        y=y,
        low=x(summary.low),
        high=x(summary.high),
        middle=x(summary.geomean),
        pairs=[x(value) for value in summary.pairs],
        text=spread(summary),
        verdict=verdict,
    )
