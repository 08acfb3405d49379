"""The results of a run in sentences: those on latencies, the same for every scenario."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from deferfs.measure.report.wording import latency
from deferfs.measure.results import Comparison, Report, Result
from deferfs.measure.scenario import Measure, Pass, Side
from deferfs.measure.stats.histogram import Histogram, merge
from deferfs.measure.stats.statistics import RatioSummary, enough_samples
from deferfs.units import three_digits

ROLE_WORDS: Final = {"inline": "inline", "deferred": "deferred", "floor": "with nothing to clean up"}
TOLD: Final = (("p50", 50.0), ("p99", 99.0), ("worst", 100.0))
NOTHING: Final = "-"


def pooled(passes: Sequence[Pass], side: str, series: str, loop: str) -> Histogram:
    """The histogram of all samples of one side."""
    return merge(
        one.series[series].latency for one in passes if one.side == side and one.loop == loop and series in one.series
    )


def told(histogram: Histogram, percent: float) -> str:
    """A percentile, or a dash when there are too few samples for it."""
    if not enough_samples(histogram.count, percent):
        return NOTHING
    return latency(histogram.percentile(percent))


def latency_sentences(
    measures: Sequence[Measure], sides: Sequence[Side], passes: Sequence[Pass], comparisons: Sequence[Comparison]
) -> list[str]:
    """One sentence for each series of latencies measured both inline and deferred."""
    sentences = []
    seen: set[tuple[str, str]] = set()
    for measure in measures:
        key = (measure.series, measure.loop)
        if measure.statistic == "value" or key in seen:
            continue
        seen.add(key)
        sentence = _sentence(measure, measures, sides, passes, comparisons)
        if sentence:
            sentences.append(sentence)
    return sentences


def _sentence(
    measure: Measure,
    measures: Sequence[Measure],
    sides: Sequence[Side],
    passes: Sequence[Pass],
    comparisons: Sequence[Comparison],
) -> str:
    parts: list[str] = []
    columns = TOLD if _has_percentiles(measure, measures) else TOLD[-1:]
    ours = any(side.role in ("inline", "deferred") for side in sides)
    for side in sides:
        histogram = pooled(passes, side.name, measure.series, measure.loop)
        if (side.role == "kernel" and ours) or not histogram.count:
            continue
        alone = sum(other.role == side.role for other in sides) == 1
        words = ROLE_WORDS.get(side.role, side.words) if alone else side.words
        labels = " ({})" if not parts and len(columns) > 1 else ""
        values = [told(histogram, percent) + labels.format(label) for label, percent in columns]
        where = f"{words} " if words.startswith("with ") else ""
        parts.append(f"{where}{', '.join(values)}" if where else f"{', '.join(values)} {words}")
    if len(parts) < 2:
        return ""
    said = [compared(one) for one in comparisons if _is_told(one, measure, comparisons)]
    verb = " waited" if len(columns) > 1 else ":"
    return f"{measure.words}{verb} {'; '.join(parts)}" + (f": {'; '.join(said)}" if said else "")


def _has_percentiles(measure: Measure, measures: Sequence[Measure]) -> bool:
    """Whether the scenario measures more of the series than its maximum."""
    return any(one.series == measure.series and one.statistic not in ("max", "value") for one in measures)


def _is_told(one: Comparison, measure: Measure, comparisons: Sequence[Comparison]) -> bool:
    """Whether it is the comparison to report, of inline and deferred: at p99 if measured, else the maximum."""
    first = comparisons[0]
    same = (one.measure.series, one.measure.loop) == (measure.series, measure.loop)
    if not same or (one.numerator, one.denominator) != (first.numerator, first.denominator):
        return False
    statistics = {
        other.measure.statistic for other in comparisons if other.measure.series == measure.series and other.ratio
    }
    wanted = next((label for label in ("p99", "max", "p50") if label in statistics), "")
    return one.measure.statistic == wanted


def compared(one: Comparison) -> str:
    """The ratio of a comparison in words: `deferred is between 2.1 and 3.4 times faster at p99 (95 % interval)`."""
    at = {"max": "at worst", "value": ""}.get(one.measure.statistic, f"at {one.measure.statistic}")
    where = f" {at}" if at else ""
    if one.verdict == "machine too busy":
        return f"no verdict{where}, as other programs used the processors"
    if one.verdict == "not enough samples" or one.ratio is None:
        return f"not enough samples for a verdict{where}"
    if one.verdict == "no difference":
        return f"no difference{where} (95 % interval of the ratio {interval(one.ratio)})"
    if one.faster == one.denominator:
        low, high, subject, word = one.ratio.low, one.ratio.high, one.denominator, "faster"
    else:
        low, high, subject, word = 1 / one.ratio.high, 1 / one.ratio.low, one.denominator, "slower"
    return f"{subject} is between {three_digits(low)} and {three_digits(high)} times {word}{where} (95 % interval)"


def measure_words(measure: Measure) -> str:
    """The label of a row: a value by its words, a latency by its series and percentile."""
    return measure.words if measure.statistic == "value" else f"{measure.series}, {measure.statistic}"


def interval(ratio: RatioSummary) -> str:
    """`0.97-1.04`."""
    return f"{three_digits(ratio.low)}-{three_digits(ratio.high)}"


def verdict_words(one: Comparison) -> str:
    """The verdict of a row: which side is faster, or why none is."""
    return f"{one.faster} faster" if one.verdict == "faster" else one.verdict


def first_line(report: Report) -> str:
    """A warning to be read first; empty when there is none."""
    if not report.busy:
        return ""
    passes = [one for result in report.results for one in result.passes]
    most = max((one.foreign_cpu_fraction for one in passes), default=0.0)
    return (
        f"Machine too busy: other programs took up to {most:.0%} of the processors while this was measured. "
        "The times below are not those of the filesystems alone, and where there are too few quiet pairs there is no "
        "verdict."
    )


def all_sentences(report: Report) -> list[str]:
    """The sentences of all results, capitalised and with a full stop. Where a scenario has several results,
    the first sentence of each begins with what sets it apart."""
    sentences = []
    for result in report.results:
        apart = set_apart(result, [other for other in report.results if other.scenario == result.scenario])
        for number, text in enumerate(result.sentences):
            sentences.append(as_sentence(f"{apart}: {text}" if apart and not number else text))
    return sentences


def set_apart(result: Result, results: Sequence[Result]) -> str:
    """`disk none, inodes=100`: in what one of several results of a scenario differs from others; empty for one."""
    keys = [key for key, value in result.parameters.items() if any(one.parameters.get(key) != value for one in results)]
    words = [f"{key}={result.parameters[key]}" for key in keys]
    if any(one.disk != result.disk for one in results):
        words.insert(0, f"disk {result.disk}")
    return ", ".join(words)


def as_sentence(text: str) -> str:
    """Capitalise, and add a full stop."""
    ended = text if text.endswith((".", "!")) else f"{text}."
    return ended[:1].upper() + ended[1:]
