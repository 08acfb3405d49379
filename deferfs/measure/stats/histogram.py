"""Latency histograms: log-linear bins with an exact minimum and maximum.

A bin is named by the smallest value that falls in it, as in fio's `json+` output: `{ns: count}`.
Below 2^SUB_BUCKET_BITS every value has its own bin; above, each power of two is cut into
2^SUB_BUCKET_BITS bins of one width, so that a bin is never wider than 1/128 of its values and a
percentile is off by less than 0.8 %.

Recording while measuring is an append to an `array`; folding into bins happens afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

SUB_BUCKET_BITS: Final = 7


def bin_floor(value: int) -> int:
    """The smallest value that shares a bin with `value` (ns, not negative)."""
    shift = value.bit_length() - (SUB_BUCKET_BITS + 1)
    return value if shift <= 0 else (value >> shift) << shift


def bin_ceiling(floor: int) -> int:
    """The largest value that falls in the bin named `floor`."""
    shift = floor.bit_length() - (SUB_BUCKET_BITS + 1)
    return floor if shift <= 0 else floor + (1 << shift) - 1


class Histogram(msgspec.Struct, frozen=True):
    """Latencies in nanoseconds. `bins` maps the smallest value of a bin to its count, in ascending
    order.
    """

    count: int
    total_ns: int
    min_ns: int
    max_ns: int
    bins: dict[int, int]

    def percentile(self, percent: float) -> int:
        """The latency in ns that `percent` of the samples do not exceed; 0 when there are none.

        As in HdrHistogram, this is the upper end of the bin that contains the sample of that rank, but never more than
        the exact maximum.
        """
        if not self.count:
            return 0
        rank = max(1, math.ceil(self.count * percent / 100 - 1e-9))
        seen = 0
        for floor, count in self.bins.items():
            seen += count
            if seen >= rank:
                return min(bin_ceiling(floor), self.max_ns)
        return self.max_ns

    def exceedance(self) -> list[tuple[int, float]]:
        """Points (latency ns, fraction of samples that take longer), for a distribution plot.

        The last point has the smallest possible fraction, one sample, at the exact maximum.
        """
        points: list[tuple[int, float]] = []
        left = self.count
        for floor, count in self.bins.items():
            points.append((max(floor, self.min_ns), left / self.count))
            left -= count
        if points:
            points.append((self.max_ns, 1 / self.count))
        return points


EMPTY: Final = Histogram(count=0, total_ns=0, min_ns=0, max_ns=0, bins={})


def fold(samples: Iterable[int]) -> Histogram:
    """The histogram of raw samples in ns."""
    bins: dict[int, int] = {}
    count = total = maximum = 0
    minimum: int | None = None
    for sample in samples:
        floor = bin_floor(sample)
        bins[floor] = bins.get(floor, 0) + 1
        count += 1
        total += sample
        maximum = max(maximum, sample)
        minimum = sample if minimum is None else min(minimum, sample)
    return Histogram(count, total, minimum or 0, maximum, dict(sorted(bins.items())))


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """All samples of several histograms together."""
    parts = [part for part in histograms if part.count]
    if not parts:
        return EMPTY
    bins: dict[int, int] = {}
    for part in parts:
        _add(bins, part.bins)
    return Histogram(
        count=sum(part.count for part in parts),
        total_ns=sum(part.total_ns for part in parts),
        min_ns=min(part.min_ns for part in parts),
        max_ns=max(part.max_ns for part in parts),
        bins=dict(sorted(bins.items())),
    )


def _add(bins: dict[int, int], more: Mapping[int, int]) -> None:
    for floor, count in more.items():
        bins[floor] = bins.get(floor, 0) + count
