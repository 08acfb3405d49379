"""The report on a terminal: ratios first, then the numbers behind them. Below 80 columns."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deferfs.measure.results import CONTROL, PERCENTILES, Report
from deferfs.measure.statistics import CLEAR, RatioSummary
from deferfs.measure.summary import ModeSummary, Spans, headline, summarize
from deferfs.measure.wording import latency, spread, three_digits
from deferfs.printable import printable

COLUMNS: Final = 79
EVICTING: Final = ("forget", "release")
"""The requests by which the kernel lets go of an inode."""


def print_report(report: Report, stream: TextIO) -> None:
    """Print the report; in colour when `stream` is a terminal and NO_COLOR is not set."""
    console = Console(file=stream, width=COLUMNS, highlight=False, soft_wrap=False)
    summaries = summarize(report)
    settings, comparison = report.settings, report.comparison
    console.print(printable(headline(report)), style="bold", markup=False)
    for note in report.notes:
        console.print(printable(f"note: {note}"), style="yellow", markup=False)
    if comparison.probes:
        console.print()
        console.print(
            _ratio_table(
                f"{settings.baseline}/{settings.candidate}: response times, geometric mean "
                f"(least-most) of {settings.pairs} pairs; above 1 {settings.candidate} is faster",
                comparison.probes,
            )
        )
    if comparison.control and settings.candidate != CONTROL:
        console.print()
        console.print(
            _ratio_table(
                f"{settings.candidate}/{CONTROL}: 1 is as fast as having nothing to clean up",
                comparison.control,
            )
        )
    console.print()
    console.print(
        f"Whole work, debt included: {settings.baseline}/{settings.candidate}"
        f" {spread(comparison.total_seconds)}; workload alone {spread(comparison.throughput)}",
        markup=False,
    )
    if comparison.probes:
        console.print()
        console.print(_latency_table(summaries))
    console.print()
    console.print(_work_table(summaries))


def render_report(report: Report) -> str:
    """The text of `print_report`, without colour."""
    stream = io.StringIO()
    print_report(report, stream)
    return stream.getvalue()


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _ratio_table(title: str, ratios: Mapping[str, Mapping[str, RatioSummary]]) -> Table:
    table = _table(title)
    table.add_column("probe", min_width=7)
    for label in PERCENTILES:
        table.add_column(label, justify="right", min_width=16)
    for probe, row in ratios.items():
        table.add_row(probe, *(_ratio_cell(row.get(label)) for label in PERCENTILES))
    return table


def _ratio_cell(summary: RatioSummary | None) -> Text:
    style = ""
    if summary is not None and summary.low > CLEAR:
        style = "green"
    elif summary is not None and summary.high < 1 / CLEAR:
        style = "red"
    return Text(spread(summary), style=style)


def _latency_table(summaries: list[ModeSummary]) -> Table:
    table = _table("Response times, all pairs of a mode together")
    for name in ("probe", "mode"):
        table.add_column(name, min_width=7)
    table.add_column("samples", justify="right")
    for label in PERCENTILES:
        table.add_column(label, justify="right", min_width=10)
    for probe in summaries[0].responses:
        for position, summary in enumerate(summaries):
            response = summary.responses[probe]
            table.add_row(
                probe if not position else "",
                summary.mode,
                f"{response.count}",
                *(latency(response.percentile(percent)) for percent in PERCENTILES.values()),
            )
    return table


def _work_table(summaries: list[ModeSummary]) -> Table:
    table = _table("Work and where it waited, mean of a run")
    table.add_column("", min_width=36)
    for summary in summaries:
        table.add_column(summary.mode, justify="right", min_width=10)
    for label, cells in work_rows(summaries):
        table.add_row(label, *cells)
    return table


def work_rows(summaries: list[ModeSummary]) -> list[tuple[str, list[str]]]:
    """Label and one cell for each mode; rows of which no mode knows anything are left out."""
    rows: list[tuple[str, list[float | None], str]] = [
        ("workload operations a second", [s.operations_per_second for s in summaries], "count"),
        ("workload", [s.workload_seconds for s in summaries], "s"),
        ("backlog at its end (inodes)", [s.backlog for s in summaries], "count"),
        ("draining the backlog", [s.drain_seconds for s in summaries], "s"),
        ("syncing", [s.sync_seconds for s in summaries], "s"),
        ("total: workload, drain, sync", [s.total_seconds for s in summaries], "s"),
        ("unmounting after that", [s.stop_seconds or None for s in summaries], "s"),
        ("inodes inactivated", [s.inactivated for s in summaries], "count"),
        ("waits inside of reclaim", [s.violations for s in summaries], "count"),
        ("direct reclaims in the daemon", [s.direct_reclaims for s in summaries], "count"),
        ("CPU time of the daemon", [s.daemon_cpu_seconds for s in summaries], "s"),
        ("charges that hit the memory limit", [s.limit_hits for s in summaries], "count"),
        ("kernel: stalled for memory", [_scaled(s.memory_stall_us, 1e-6) for s in summaries], "s"),
        (
            "kernel: in direct reclaim",
            [_scaled(s.reclaim_ns, 1e-9 / s.runs) for s in summaries],
            "s",
        ),
    ]
    rows += [
        (f"in the handler of {name.upper()}", [_span(s, s.requests.get(name)) for s in summaries], "s")
        for name in EVICTING
    ]
    causes = list(dict.fromkeys(cause for s in summaries for cause in s.waits))
    for cause in causes:
        totals = [_span(s, s.waits.get(cause)) for s in summaries]
        if any(totals):
            rows.append((f"requests waited for {cause}", totals, "s"))
    return [
        (label, [_cell(value, unit) for value in values])
        for label, values, unit in rows
        if any(value is not None for value in values)
    ]


def _span(summary: ModeSummary, spans: Spans | None) -> float | None:
    """Seconds in one run."""
    return None if spans is None else spans.total_ns * 1e-9 / summary.runs


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "s":
        return latency(value * 1e9) if value else "0"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else three_digits(value)
