"""Formatting of numbers in the table and on the page."""

from __future__ import annotations

from deferfs.measure.stats.statistics import RatioSummary
from deferfs.units import format_ns, format_size, three_digits


def latency(nanoseconds: float) -> str:
    """A latency with three digits and its unit: `950 ns`, `1.20 us`, `82.8 ms`, `1.05 s`."""
    return format_ns(nanoseconds, significant=True)


def times(value: float) -> str:
    """A ratio: `1.93x`."""
    return f"{three_digits(value)}x"


def spread(summary: RatioSummary | None) -> str:
    """A ratio with its 95 % interval: `1.93x (1.20-3.41)`; a dash without one."""
    if summary is None:
        return "-"
    return f"{times(summary.middle)} ({three_digits(summary.low)}-{three_digits(summary.high)})"


def size(count: float) -> str:
    """Bytes: `0 B`, `512 KiB`, `1.20 GiB`."""
    return format_size(count, significant=True)


def amount(name: str, value: float) -> str:
    """The value of a counter, formatted by the unit at the end of its name."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith("_seconds"):
        return latency(value * 1e9)
    if name.endswith("_ns"):
        return latency(value)
    return f"{value:,.0f}" if value >= 100 or value == int(value) else three_digits(value)
