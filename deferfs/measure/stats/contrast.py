"""Comparison of two results: of two versions, or of two machines.

Their passes did not alternate, so they are not paired, and the difference may be due to the machine. For the interval
each is resampled by itself.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from deferfs.measure.report.sentences import interval, measure_words
from deferfs.measure.report.wording import amount, latency, times
from deferfs.measure.results import Report, Result
from deferfs.measure.scenario import Measure
from deferfs.measure.stats.comparing import VALUE, is_busy, value_of
from deferfs.measure.stats.statistics import RatioSummary, judge, summarize_unpaired
from deferfs.printable import printable

COLUMNS: Final = 79


class Row(msgspec.Struct, frozen=True):
    """One measure of one side in both: means, and A divided by B."""

    scenario: str
    side: str
    measure: Measure
    before: str
    after: str
    ratio: RatioSummary | None
    verdict: str


class Contrast(msgspec.Struct, frozen=True):
    """All rows, and notes about the two that a reader must know."""

    rows: list[Row]
    notes: list[str]


Defaults = Mapping[str, Mapping[str, Any]]
"""The default parameters of each scenario, by its name."""


def contrast(before: Report, after: Report, defaults: Defaults) -> Contrast:
    """Compare what both contain: the same scenario with the same parameters on the same disk. A result of a version
    that had fewer parameters was taken with the `defaults` of those that came later.
    """
    lacking = _lacking("A", before, defaults) + _lacking("B", after, defaults)
    before, after = _completed(before, defaults), _completed(after, defaults)
    rows = []
    for one in before.results:
        for other in after.results:
            if (one.scenario, one.parameters, one.disk) == (other.scenario, other.parameters, other.disk):
                rows += _rows(one, other)
    return Contrast(rows, lacking + _notes(before, after))


def _completed(report: Report, defaults: Defaults) -> Report:
    results = [
        msgspec.structs.replace(one, parameters={**defaults.get(one.scenario, {}), **one.parameters})
        for one in report.results
    ]
    return msgspec.structs.replace(report, results=results)


def _lacking(name: str, report: Report, defaults: Defaults) -> list[str]:
    found = {
        f"{name} is of a version without {key}, which is taken to be {value}"
        for one in report.results
        for key, value in defaults.get(one.scenario, {}).items()
        if key not in one.parameters
    }
    return sorted(found)


def _rows(one: Result, other: Result) -> list[Row]:
    names = [side.name for side in one.ran if side.name in {ran.name for ran in other.ran}]
    found = [_row(name, measure, one, other) for name in names for measure in one.measures if measure in other.measures]
    return [row for row in found if row is not None]


def _row(side: str, measure: Measure, one: Result, other: Result) -> Row | None:
    values, busy = [], False
    for result in (one, other):
        passes = [done for done in result.of_side(side, measure.loop) if done.outcome == "finished"]
        busy = busy or any(map(is_busy, passes))
        values.append([value for done in passes if (value := value_of(done, measure)) is not None])
    above, below = values
    if not above and not below:
        return None
    ratio = summarize_unpaired(above, below) if above and below else None
    verdict, direction = judge(ratio, min(len(above), len(below)))
    words = {1: "B faster", -1: "A faster", 0: str(verdict)}[direction]
    return Row(
        one.scenario,
        side,
        measure,
        _mean(measure, above),
        _mean(measure, below),
        ratio,
        "machine too busy" if busy else words,
    )


def _mean(measure: Measure, values: list[float]) -> str:
    if not values:
        return "-"
    mean = sum(values) / len(values)
    if measure.statistic != VALUE:
        return latency(mean)
    return latency(mean * 1e9) if measure.series == "seconds" else amount(measure.series, mean)


def _notes(before: Report, after: Report) -> list[str]:
    notes = [
        f"not the same {name}: {getattr(before.machine, name)} and {getattr(after.machine, name)}"
        for name in ("kernel", "cpus", "memory_bytes", "python", "deferfs", "scratch_filesystem")
        if getattr(before.machine, name) != getattr(after.machine, name)
    ]
    known = [{(one.scenario, str(one.parameters), one.disk) for one in report.results} for report in (before, after)]
    for name, only in (("A", known[0] - known[1]), ("B", known[1] - known[0])):
        notes += [f"only in {name}: {scenario} on disk {disk}" for scenario, _, disk in sorted(only)]
    return notes


def render_contrast(found: Contrast) -> str:
    """The table, for a terminal."""
    stream = io.StringIO()
    console = Console(file=stream, width=COLUMNS, highlight=False)
    for note in found.notes:
        console.print(printable(f"note: {note}"), markup=False)
    table = Table(title="A divided by B; above 1 B is faster", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify, table.title_style = "left", ""
    for name in ("scenario", "side", "measure"):
        table.add_column(name, overflow="fold")
    for name in ("A", "B", "A/B", "95 %"):
        table.add_column(name, justify="right")
    table.add_column("verdict", overflow="fold")
    scenario = ""
    for row in found.rows:
        words = measure_words(row.measure)
        middle, spread = (times(row.ratio.middle), interval(row.ratio)) if row.ratio else ("-", "-")
        first = row.scenario if row.scenario != scenario else ""
        table.add_row(first, row.side, words, row.before, row.after, middle, spread, row.verdict)
        scenario = row.scenario
    console.print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())
