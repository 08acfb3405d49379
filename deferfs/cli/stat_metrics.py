"""The statistics of a mount as Prometheus metrics: base units, `deferfs_` in front, a `mountpoint` label on each.

Which field makes which metric is said beside the field, in `deferfs.contract.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from deferfs.contract.fields import Field, Unit, fields_of
from deferfs.contract.statistics import Statistics, Timing, Totals
from deferfs.printable import printable

Labels = tuple[str, ...]
"""Values of all labels but the mountpoint."""

BUCKET_POWERS: Final = range(12, 36, 2)
"""Bounds of histograms: powers of two of a ns, 4 us to 17 s; each four times the one before."""


def text(statistics: Statistics) -> str:
    """All metrics in the text format."""
    registry = CollectorRegistry()
    registry.register(MountCollector(lambda: statistics))
    return generate_latest(registry).decode()


class MountCollector(Collector):
    """Asks for the statistics at each scrape."""

    def __init__(self, ask: Callable[[], Statistics]) -> None:
        self._ask = ask

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known without asking the daemon."""
        return []

    def collect(self) -> Iterator[Metric]:
        found = self._ask()
        mountpoint = printable(found.mountpoint)
        info = InfoMetricFamily("deferfs_mount", "What is mounted.", labels=("mountpoint",))
        names = ("version", "uuid", "label", "image", "evict")
        info.add_metric([mountpoint], {name: printable(str(getattr(found, name))) for name in names})
        yield info
        families = _Families(mountpoint, found.space.block_size)
        families.add_struct(found, (), ())
        yield from families.by_name.values()


class _Families:
    """The metrics so far; fields that share a name share a metric."""

    def __init__(self, mountpoint: str, block_size: int) -> None:
        self.by_name: dict[str, Metric] = {}
        self._mountpoint = mountpoint
        self._block_size = block_size

    def add_struct(self, struct: msgspec.Struct, names: Labels, values: Labels) -> None:
        """All metrics of the fields of `struct`, and of the structs in it, with these labels."""
        for field in fields_of(type(struct)):
            value = getattr(struct, field.name)
            if isinstance(value, list):
                assert field.metric is not None, field.name
                for number, item in enumerate(value):
                    self.add_struct(item, field.metric.labels, (str(number),))
            elif isinstance(value, msgspec.Struct) and not isinstance(value, Totals):
                self.add_struct(value, (), ())
            elif field.metric is not None:
                own_names = (field.metric.label[0],) if field.metric.label else field.metric.labels
                own_values = (field.metric.label[1],) if field.metric.label else ()
                self._add(field, value, (*names, *own_names), (*values, *own_values))

    def _add(self, field: Field, value: Any, names: Labels, values: Labels) -> None:
        assert field.metric is not None
        name, words = field.metric.name, field.metric.summary or _sentence(field.meaning)
        leaves = list(_leaves(value, len(names) - len(values)))
        if field.leaf is Totals:
            counts = self._family(CounterMetricFamily, f"{name}s", f"{words}.", names)
            seconds = self._family(CounterMetricFamily, f"{name}_seconds", f"{words}, in seconds.", names)
            for keys, totals in leaves:
                counts.add_metric((self._mountpoint, *values, *keys), totals.count)
                seconds.add_metric((self._mountpoint, *values, *keys), totals.total_ns / 1e9)
            return
        if field.leaf is Timing:
            histogram = self._family(HistogramMetricFamily, name, words, names)
            for keys, timing in leaves:
                histogram.add_metric((self._mountpoint, *values, *keys), _buckets(timing), timing.total_ns / 1e9)
            return
        kind = CounterMetricFamily if field.unit is Unit.TOTAL else GaugeMetricFamily
        factor = self._block_size if field.unit is Unit.BLOCKS and name.endswith("_bytes") else 1
        family = self._family(kind, name, words, names)
        for keys, number in leaves:
            found = float(bool(number)) if field.unit in (Unit.FLAG, Unit.TEXT) else float(number) * factor
            family.add_metric((self._mountpoint, *values, *keys), found)

    def _family(self, kind: Callable[..., Any], name: str, words: str, names: Labels) -> Any:
        family = self.by_name.get(name)
        if family is None:
            family = self.by_name[name] = kind(f"deferfs_{name}", words, labels=("mountpoint", *names))
        return family


def _leaves(value: Any, depth: int) -> Iterator[tuple[Labels, Any]]:
    """What is in maps of `depth` keys, with these keys; one map may have two in one, `SOURCE:CAUSE`."""
    if not isinstance(value, dict):
        yield (), value
        return
    for key, inner in value.items():
        keys = tuple(key.split(":", depth - 1)) if not isinstance(inner, dict) else (key,)
        for more, leaf in _leaves(inner, depth - len(keys)):
            yield (*keys, *more), leaf


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def _buckets(timing: Timing) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound."""
    found = []
    for power in BUCKET_POWERS:
        below = sum(count for bound, count in timing.log2_ns.items() if bound <= 1 << power)
        found.append((repr((1 << power) / 1e9), float(below)))
    return [*found, ("+Inf", float(timing.count))]
