"""Statistics for tests: all zero but for what a test says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from deferfs.contract.fields import fields_of
from deferfs.contract.statistics import SCHEMA, Statistics, decode
from tests.documents import struct_in


def structs(struct: type[msgspec.Struct] = Statistics) -> list[type[msgspec.Struct]]:
    """It, and the structs that it has, however deep."""
    inner = [found for field in fields_of(struct) if (found := struct_in(field)) is not None]
    return [struct, *(deeper for one in inner for deeper in structs(one))]


def zero(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The object of a daemon to which nothing has happened."""
    found: dict[str, Any] = {}
    for field in fields_of(struct):
        kind = get_origin(field.kind) or field.kind
        found[field.name] = zero(kind) if issubclass(kind, msgspec.Struct) else kind()
    return found


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section. KeyError when a change is of a key that there is not."""
    found = dict(base)
    for key, value in changes.items():
        inner = found[key]
        found[key] = merged(inner, value) if isinstance(value, Mapping) and inner else value
    return found


def answer(**changes: Any) -> dict[str, Any]:
    """What a daemon answers."""
    return merged({**zero(Statistics), "schema": SCHEMA}, changes)


def read(answered: object) -> Statistics:
    """What a reader makes of it."""
    return decode(answered, "/mnt")


def sample(**changes: Any) -> Statistics:
    """What a reader makes of it."""
    return read(answer(**changes))
