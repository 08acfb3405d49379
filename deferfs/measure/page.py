"""The report as one HTML file that needs nothing else: styles and plots inside, no script."""

from __future__ import annotations

import importlib.util
from typing import Final

from deferfs.errors import EnvironmentProblem
from deferfs.measure import plot
from deferfs.measure.results import CONTROL, PERCENTILES, Report
from deferfs.measure.summary import headline, modes_of, summarize
from deferfs.measure.table import work_rows
from deferfs.measure.wording import latency, size, spread

TEMPLATE: Final = "report.html.j2"
PROBE_WORDS: Final = {
    "create": "create an empty file",
    "stat": "stat a cold file",
    "write": "overwrite 4 KiB",
    "fsync": "fsync after a 4 KiB write",
    "memory": "touch 256 KiB of fresh memory",
}


def check_renderer() -> None:
    """EnvironmentProblem when jinja2, which is an extra, is not installed."""
    if importlib.util.find_spec("jinja2") is None:
        raise EnvironmentProblem("--html needs jinja2; install it by: pip install 'deferfs[bench]'")


def render_page(report: Report) -> str:
    """The page of `report`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deferfs.measure"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(latency=latency, size=size, spread=spread)
    summaries = summarize(report)
    comparison, settings = report.comparison, report.settings
    return environment.get_template(TEMPLATE).render(
        report=report,
        settings=settings,
        machine=report.machine,
        headline=headline(report),
        modes=modes_of(report),
        control=CONTROL,
        summaries=summaries,
        comparison=comparison,
        percentiles=PERCENTILES,
        forest=plot.forest(comparison.probes),
        control_forest=plot.forest(comparison.control) if settings.candidate != CONTROL else None,
        distributions=_distributions(report),
        work_rows=work_rows(summaries),
        plot=plot,
    )


def _distributions(report: Report) -> list[plot.Distribution]:
    summaries = summarize(report)
    plots = []
    for probe in summaries[0].responses:
        drawn = plot.distribution(
            PROBE_WORDS.get(probe, probe),
            {summary.mode: summary.responses[probe] for summary in summaries},
            [(run.mode, run.probes[probe].response) for run in report.runs],
        )
        if drawn is not None:
            plots.append(drawn)
    return plots
