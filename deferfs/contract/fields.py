"""The description of a field of the statistics: its unit, its meaning, and its metric.

A field is annotated with a type of this module, which gives the unit, with `says(MEANING)`, and, if Prometheus shows
it, with a `Metric`. `fields_of` returns these for the documentation and the metrics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec


class Unit(Enum):
    """The unit of a number; the value is the word in the documentation."""

    COUNT = "count"
    """A current number."""
    TOTAL = "total"
    """Number of events since the mount: only grows."""
    BYTES = "bytes"
    BLOCKS = "blocks"
    """In blocks of the filesystem (`space.block_size`)."""
    SECONDS = "s"
    NANOSECONDS = "ns"
    NANOSECONDS_TOTAL = "ns, total"
    MICROSECONDS = "us"
    PER_SECOND = "per s"
    NUMBER = "number"
    """An identifier or a version, not a quantity."""
    FLAG = "true or false"
    TEXT = "text"


Count = Annotated[int, Unit.COUNT]
Total = Annotated[int, Unit.TOTAL]
Bytes = Annotated[int, Unit.BYTES]
Blocks = Annotated[int, Unit.BLOCKS]
Seconds = Annotated[float, Unit.SECONDS]
Nanoseconds = Annotated[int, Unit.NANOSECONDS]
NanosecondsTotal = Annotated[int, Unit.NANOSECONDS_TOTAL]
Microseconds = Annotated[int, Unit.MICROSECONDS]
PerSecond = Annotated[float, Unit.PER_SECOND]
Number = Annotated[int, Unit.NUMBER]
Flag = Annotated[bool, Unit.FLAG]
Text = Annotated[str, Unit.TEXT]


def says(meaning: str) -> msgspec.Meta:
    """The meaning of a field in one sentence; Markdown."""
    return msgspec.Meta(description=meaning)


@dataclass(frozen=True, slots=True)
class Metric:
    """The Prometheus metric of a field: `deferfs_NAME`, a counter for a total, a histogram for a timing, else a gauge.

    Fields with the same name form one metric, distinguished by `label`, (name, value). `labels` are the names of the
    labels whose values are the keys of a map, or the indexes of a list. A counter's `name` is without its `_total`.
    `summary` is the help text of fields that share a metric; default: the meaning of the field.
    """

    name: str
    label: tuple[str, str] | None = None
    labels: tuple[str, ...] = ()
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct. `kind` is its type without annotations. `unit` is that of its value, or of the values of
    its map; None for a struct."""

    name: str
    kind: Any
    unit: Unit | None
    meaning: str
    metric: Metric | None

    @property
    def leaf(self) -> Any:
        """The innermost value type, inside any maps."""
        return _leaf(self.kind)


@cache
def fields_of(struct: type[msgspec.Struct]) -> tuple[Field, ...]:
    """The fields of `struct`, in their order."""
    hints = get_type_hints(struct, include_extras=True)
    return tuple(_field(name, hints[name]) for name in struct.__struct_fields__)


def _field(name: str, hint: Any) -> Field:
    notes = getattr(hint, "__metadata__", ())
    kind = hint.__origin__ if notes else hint
    return Field(
        name,
        kind,
        next(_of((*notes, *getattr(_leaf(kind), "__metadata__", ())), Unit), None),
        next((note.description or "" for note in _of(notes, msgspec.Meta)), ""),
        next(_of(notes, Metric), None),
    )


def _leaf(kind: Any) -> Any:
    if get_origin(kind) is dict:
        return _leaf(get_args(kind)[-1])
    return get_args(kind)[0] if get_origin(kind) in (Union, UnionType) else kind


def _of(notes: tuple[Any, ...], kind: type[Any]) -> Iterator[Any]:
    return (note for note in notes if isinstance(note, kind))
