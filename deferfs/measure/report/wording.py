"""Numbers as the table and the page show them."""

from __future__ import annotations

import math

from deferfs.measure.stats.statistics import RatioSummary


def latency(nanoseconds: float) -> str:
    """A latency with three digits and its unit: `950 ns`, `1.20 us`, `82.8 ms`, `1.05 s`."""
    value = nanoseconds
    for unit in ("ns", "us", "ms"):
        if value < 999.5:
            return f"{three_digits(value) if unit != 'ns' else f'{value:.0f}'} {unit}"
        value /= 1000
    return f"{three_digits(value)} s"


def three_digits(value: float) -> str:
    """Three significant digits without an exponent, for values from 0.01 up."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:.{min(decimals, 2)}f}"


def times(value: float) -> str:
    """A ratio: `1.93x`."""
    return f"{three_digits(value)}x"


def spread(summary: RatioSummary | None) -> str:
    """A ratio with its 95 % interval: `1.93x (1.20-3.41)`; a dash when there is
    none.
    """
    if summary is None:
        return "-"
    return f"{times(summary.middle)} ({three_digits(summary.low)}-{three_digits(summary.high)})"


def size(count: float) -> str:
    """Bytes: `0`, `512 KiB`, `1.20 GiB`."""
    value = float(count)
    if value < 1024:
        return f"{value:.0f}"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1000 or unit == "GiB":
            break
    return f"{three_digits(value)} {unit}"


def amount(name: str, value: float) -> str:
    """The value of a counter, by the unit at the end of its name."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return latency(value * 1e9)
    if name.endswith("_ns"):
        return latency(value)
    return f"{value:,.0f}" if value >= 100 or value == int(value) else three_digits(value)
