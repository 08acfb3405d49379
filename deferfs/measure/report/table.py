"""The report on a terminal: sentences first, then the ratios with their verdicts, then where the time went. Less than
80 columns wide.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deferfs.measure.report.sentences import (
    all_sentences,
    first_line,
    interval,
    measure_words,
    pooled,
    told,
    verdict_words,
)
from deferfs.measure.report.wording import amount, latency, times
from deferfs.measure.results import Comparison, Report, Result, series_names
from deferfs.measure.scenario import Pass, Stall, Wait
from deferfs.printable import printable

COLUMNS: Final = 79
HIGHEST: Final = "_highest"
"""In the name of a counter: the highest value of a pass. A mean of such values would hide what they are for."""
FRAMES_MAX: Final = 6
"""Frames shown of a stack: the innermost ones say where the task waited."""
PERCENTS: Final = (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("max", 100.0))


def print_report(report: Report, stream: TextIO) -> None:
    """Print the report; in colour when `stream` is a terminal, NO_COLOR is not set and the machine was quiet."""
    text = io.StringIO()
    coloured = stream.isatty() and "NO_COLOR" not in os.environ
    console = Console(file=text, width=COLUMNS, highlight=False, soft_wrap=False, force_terminal=coloured)
    _Printer(console, report).print_all()
    stream.writelines(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


class _Printer:
    def __init__(self, console: Console, report: Report) -> None:
        self._console, self._report = console, report

    def print_all(self) -> None:
        """Everything, most important first."""
        first = first_line(self._report)
        if first:
            self._line(first, "bold red")
        if self._report.interrupted:
            self._line("Interrupted: this is what was finished.", "bold")
        for sentence in all_sentences(self._report):
            self._line(sentence, "" if self._report.busy else "bold")
            self._console.print()
        for note in self._report.notes:
            self._line(f"note: {note}", "yellow")
        for result in self._report.results:
            if result.passes:
                self._print_result(result)

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(printable(text), style=style, markup=False)

    def _print_result(self, result: Result) -> None:
        self._console.print()
        self._line(f"{result.scenario}, disk: {result.disk or 'that of the machine'}", "bold")
        if result.parameters:
            self._line(parameter_words(result))
        if result.comparisons:
            self._console.print(self._ratios(result.comparisons))
        if result.aa:
            self._console.print(_aa_table(result))
        for loop in dict.fromkeys(one.loop for one in result.passes):
            passes = [one for one in result.passes if one.loop == loop]
            if series_names(passes):
                self._console.print()
                self._console.print(_latency_table(result, passes, loop))
        self._console.print()
        self._console.print(_counter_table(result))
        self._print_where(result)

    def _ratios(self, comparisons: Sequence[Comparison]) -> Table:
        table = _table("Ratios; above 1 the second one is faster")
        table.add_column("measure", max_width=25, overflow="fold")
        table.add_column("of", overflow="fold")
        table.add_column("ratio", justify="right")
        table.add_column("95 %", justify="right")
        table.add_column("verdict", overflow="fold")
        for one in comparisons:
            style = "" if self._report.busy or one.verdict != "faster" else _style(one)
            table.add_row(
                measure_words(one.measure),
                f"{one.numerator}/{one.denominator}",
                times(one.ratio.middle) if one.ratio else "-",
                interval(one.ratio) if one.ratio else "-",
                Text(verdict_words(one), style=style),
            )
        return table

    def _print_where(self, result: Result) -> None:
        waits = [(side.name, mean_waits(result.of_side(side.name))) for side in result.ran]
        if any(found for _, found in waits):
            self._console.print()
            self._console.print(_wait_table(waits))
        for side in result.ran:
            stall = longest_stall(result.of_side(side.name))
            if stall is not None:
                self._console.print()
                self._line(f"The longest stall of {side.words}: {latency(stall.duration_ns)} ({stall.series})")
                for frame in stall.stack[:FRAMES_MAX]:
                    self._line(f"    {frame}")
                if not stall.stack:
                    self._line("    no stack could be read")


def _style(one: Comparison) -> str:
    return "green" if one.faster == one.denominator else "red"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0), pad_edge=False)


def _aa_table(result: Result) -> Table:
    table = _table(f"{result.ran[0].words} against itself: random pairings without a difference")
    for name in ("measure", "no difference in", "wanted"):
        table.add_column(name)
    for one in result.aa:
        table.add_row(
            measure_words(one.measure),
            f"{one.no_difference} of {one.of}" if one.of else "not enough samples",
            "90 of 100",
        )
    return table


def _latency_table(result: Result, passes: Sequence[Pass], loop: str) -> Table:
    table = _table(f"Latencies, {loop} loop, all passes of a side together")
    table.add_column("operation", overflow="fold", max_width=20)
    table.add_column("side", overflow="fold")
    table.add_column("samples", justify="right")
    for label, _ in PERCENTS:
        table.add_column(label, justify="right")
    for series in series_names(passes):
        first = True
        for side in result.ran:
            histogram = pooled(passes, side.name, series, loop)
            if histogram.count:
                cells = [told(histogram, percent) for _, percent in PERCENTS]
                table.add_row(series if first else "", side.name, f"{histogram.count}", *cells)
                first = False
    return table


def counter_rows(result: Result) -> list[tuple[str, list[str]]]:
    """Labels, and the mean per pass for each side that ran; of a highest value the highest in any pass."""
    rows = [("whole work, until nothing is owed", [_mean_seconds(result.of_side(side.name)) for side in result.ran])]
    names = dict.fromkeys(name for one in result.passes for name in one.counters)
    for name in names:
        cells = []
        for side in result.ran:
            values = [one.counters[name] for one in result.of_side(side.name) if name in one.counters]
            found = max(values, default=0.0) if HIGHEST in name else sum(values) / max(1, len(values))
            cells.append(amount(name, found) if values else "-")
        rows.append((counter_words(name), cells))
    outcomes = {one.outcome for one in result.passes} - {"finished"}
    for outcome in sorted(outcomes):
        cells = []
        for side in result.ran:
            ours = result.of_side(side.name)
            cells.append(f"{sum(one.outcome == outcome for one in ours)} of {len(ours)}")
        rows.append((outcome, cells))
    return rows


def parameter_words(result: Result) -> str:
    """`inodes=1000, linked=no`."""
    return ", ".join(f"{key}={_plain(value)}" for key, value in result.parameters.items())


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def counter_words(name: str) -> str:
    """`resident_bytes` as `resident`: the unit is printed with the value."""
    for unit in ("_bytes", "_seconds", "_ns", "_total"):
        name = name.removesuffix(unit)
    return name.replace("_", " ") + (" of all passes" if HIGHEST in name else "")


def _mean_seconds(passes: Sequence[Pass]) -> str:
    return latency(1e9 * sum(one.seconds for one in passes) / len(passes)) if passes else "-"


def _counter_table(result: Result) -> Table:
    table = _table("Means of a pass")
    table.add_column("", overflow="fold", max_width=30)
    for side in result.ran:
        table.add_column(side.name, justify="right", overflow="fold")
    for label, cells in counter_rows(result):
        table.add_row(label, *cells)
    return table


def mean_waits(passes: Sequence[Pass]) -> dict[str, Wait]:
    """By cause: mean number and total of waits in a pass, and the longest of all."""
    causes = dict.fromkeys(cause for one in passes for cause in one.waits)
    found = {}
    for cause in causes:
        waits = [one.waits.get(cause, Wait(0, 0)) for one in passes]
        found[cause] = Wait(
            round(sum(wait.count for wait in waits) / len(waits)),
            round(sum(wait.total_ns for wait in waits) / len(waits)),
            max(wait.max_ns for wait in waits),
        )
    return found


def _wait_table(waits: Sequence[tuple[str, dict[str, Wait]]]) -> Table:
    table = _table("Where the time went: waits by cause, mean of a pass")
    for name in ("cause", "side"):
        table.add_column(name)
    for name in ("waits", "together", "longest"):
        table.add_column(name, justify="right")
    causes = dict.fromkeys(cause for _, found in waits for cause in found)
    for cause in causes:
        first = True
        for side, found in waits:
            wait = found.get(cause)
            if wait is not None and wait.count:
                longest = latency(wait.max_ns) if wait.max_ns else "-"
                table.add_row(cause if first else "", side, f"{wait.count}", latency(wait.total_ns), longest)
                first = False
    return table


def longest_stall(passes: Sequence[Pass]) -> Stall | None:
    """The longest of all sampled stalls; None when there is none."""
    return max((stall for one in passes for stall in one.stalls), key=lambda stall: stall.duration_ns, default=None)
