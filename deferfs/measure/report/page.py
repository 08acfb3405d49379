"""The report as one self-contained HTML file: styles and plots inside, no script."""

from __future__ import annotations

import base64
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from deferfs.errors import EnvironmentProblem
from deferfs.measure.report import plot
from deferfs.measure.report.sentences import (
    all_sentences,
    first_line,
    interval,
    measure_words,
    pooled,
    told,
    verdict_words,
)
from deferfs.measure.report.table import (
    PERCENTS,
    counter_rows,
    longest_stall,
    mean_waits,
    parameter_words,
)
from deferfs.measure.report.wording import latency, size, times
from deferfs.measure.results import Comparison, Report, Result, encode_report, series_names
from deferfs.measure.scenario import Pass, Side
from deferfs.units import three_digits

TEMPLATE: Final = "report.html.j2"
GLANCE_MAX: Final = 4
"""Maximum of results in the picture at the top."""
RAW_BYTES_MAX: Final = 4 << 20
"""A larger JSON file is not embedded in the page."""


class Bar(msgspec.Struct, frozen=True):
    """The longest wait of one side: `width` in percent of the axis; `passes`: the longest of each pass, with a text."""

    side: Side
    width: float
    text: str
    passes: list[plot.Tick]
    note: str = ""


class Bars(msgspec.Struct, frozen=True):
    """The bars of one result, on the common axis of the picture."""

    result: Result
    operation: str
    bars: list[Bar]


class RatioRow(msgspec.Struct, frozen=True):
    """A ratio with its interval, in percent of the axis."""

    comparison: Comparison
    words: str
    low: float
    high: float
    middle: float
    pairs: list[plot.Tick]
    verdict: str
    colour: str


def check_renderer() -> None:
    """EnvironmentProblem when jinja2, which is an extra, is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise EnvironmentProblem("--html needs jinja2; install it by: pip install 'deferfs[bench]'")


def render_page(report: Report) -> str:
    """The page of `report`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deferfs.measure.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    functions: dict[str, Callable[..., Any]] = {
        "latency": latency,
        "size": size,
        "times": times,
        "three_digits": three_digits,
        "interval": interval,
    }
    environment.filters.update(functions)
    ran = [result for result in report.results if result.passes]
    axis, glance = glance_of(ran)
    return environment.get_template(TEMPLATE).render(
        report=report,
        machine=report.machine,
        first_line=first_line(report),
        sentences=all_sentences(report),
        axis=axis,
        glance=glance,
        sections=[section_of(report, result) for result in ran],
        raw=_raw(report),
        plot=plot,
        percents=PERCENTS,
    )


def _raw(report: Report) -> str:
    """The JSON file, for a link that saves it; empty when it is too large."""
    data = encode_report(report)
    return base64.b64encode(data).decode("ascii") if len(data) <= RAW_BYTES_MAX else ""


def main_series(result: Result) -> tuple[str, str]:
    """The main series of the result, and its words: that of the first measure of latencies."""
    for measure in result.measures:
        if measure.statistic != "value" and any(measure.series in one.series for one in result.passes):
            return measure.series, measure.words
    names = series_names(result.passes)
    return (names[0], names[0]) if names else ("", "")


def glance_of(results: Sequence[Result]) -> tuple[plot.LogAxis | None, list[Bars]]:
    """The picture at the top: the longest wait of each side. With many results, the first of each scenario."""
    shown = list(results)
    if len(shown) > GLANCE_MAX:
        shown = list({result.scenario: result for result in reversed(shown)}.values())[::-1]
    found = [(result, *main_series(result)) for result in shown]
    found = [entry for entry in found if entry[1]]
    maxima = {
        (number, side.name): _maxima(result.of_side(side.name), series)
        for number, (result, series, _) in enumerate(found)
        for side in result.ran
    }
    values = [value for ours in maxima.values() for _, value in ours]
    if not values:
        return None, []
    axis = plot.bar_axis(values)
    glance = []
    for number, (result, _, words) in enumerate(found):
        bars = [_bar(side, maxima[number, side.name], result, axis) for side in result.ran]
        glance.append(Bars(result, words, bars))
    return axis, glance


def _maxima(passes: Sequence[Pass], series: str) -> list[tuple[int, float]]:
    """(pair, longest wait in ns) of each pass that has the series."""
    return [
        (one.pair, float(one.series[series].latency.max_ns))
        for one in passes
        if series in one.series and one.series[series].latency.count
    ]


def _bar(side: Side, maxima: Sequence[tuple[int, float]], result: Result, axis: plot.LogAxis) -> Bar:
    passes = result.of_side(side.name)
    killed = sum(one.outcome == "oom-killed" for one in passes)
    note = f"OOM-killed {killed} of {len(passes)}" if killed else ""
    if not maxima:
        return Bar(side, 0.0, "-", [], note)
    longest = max(value for _, value in maxima)
    ticks = [plot.Tick(axis.at(value), f"pair {pair}: {latency(value)}") for pair, value in maxima]
    return Bar(side, axis.at(longest), latency(longest), ticks, note)


def section_of(report: Report, result: Result) -> dict[str, Any]:
    """The variables of the template for one result."""
    rows, ticks = ratio_rows(report, result)
    return {
        "result": result,
        "parameters": parameter_words(result),
        "rows": [row for row in rows if row.comparison.denominator in _subjects(result)],
        "all_rows": rows,
        "ticks": ticks,
        "plots": _distributions(result),
        "latencies": _latencies(result),
        "counters": counter_rows(result),
        "waits": [(side, mean_waits(result.of_side(side.name))) for side in result.ran],
        "stalls": [(side, stall) for side in result.ran if (stall := longest_stall(result.of_side(side.name)))],
    }


def _subjects(result: Result) -> set[str]:
    """The sides that are the subject of the ratios: the deferred ones, so that the direction is always the same;
    without deferfs, those that are mounted."""
    deferred = {side.name for side in result.sides if side.role == "deferred"}
    return deferred or {side.name for side in result.sides if side.role != "floor"}


def ratio_rows(report: Report, result: Result) -> tuple[list[RatioRow], list[plot.Tick]]:
    """All comparisons of a result that have a ratio, on one axis."""
    known = [one for one in result.comparisons if one.ratio is not None]
    ends = [end for one in known if one.ratio for end in (one.ratio.low, one.ratio.high)]
    place, ticks = plot.ratio_axis(ends)
    rows = []
    for one in known:
        assert one.ratio is not None
        colour = "even"
        if one.verdict == "faster" and not report.busy:
            colour = "right" if one.faster == one.denominator else "left"
        rows.append(
            RatioRow(
                one,
                measure_words(one.measure),
                place(one.ratio.low),
                place(one.ratio.high),
                place(one.ratio.middle),
                [plot.Tick(place(value), times(value)) for value in one.ratio.pairs],
                verdict_words(one),
                colour,
            )
        )
    return rows, ticks


def _distributions(result: Result) -> list[tuple[str, list[tuple[Side, plot.Distribution]]]]:
    """(title, a plot for each side), for each series of each loop."""
    found = []
    for loop in dict.fromkeys(one.loop for one in result.passes):
        passes = [one for one in result.passes if one.loop == loop]
        for series in series_names(passes):
            by_side = {
                side.name: [
                    (o.pair, o.series[series].latency) for o in result.of_side(side.name, loop) if series in o.series
                ]
                for side in result.ran
            }
            drawn = plot.distributions(by_side)
            if drawn:
                found.append((f"{series}, {loop} loop", [(s, drawn[s.name]) for s in result.ran if s.name in drawn]))
    return found


def _latencies(result: Result) -> list[tuple[str, Side, int, list[str]]]:
    """(series and loop, side, samples, percentiles)."""
    rows = []
    for loop in dict.fromkeys(one.loop for one in result.passes):
        passes = [one for one in result.passes if one.loop == loop]
        for series in series_names(passes):
            for side in result.ran:
                histogram = pooled(passes, side.name, series, loop)
                if histogram.count:
                    cells = [told(histogram, percent) for _, percent in PERCENTS]
                    rows.append((f"{series}, {loop}", side, histogram.count, cells))
    return rows
