"""Damage, one field at a time, and the problems it must be reported as.

Each module registers functions that damage the sample image, with exactly the codes that the check
must then report: no fewer, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.unit.check.image import Image

Damage = Callable[[Image], object]


class Case(NamedTuple):
    """`damage` is done to a sample image, which is then reported as `codes`."""

    damage: Damage
    codes: frozenset[str]


CASES: dict[str, Case] = {}


def case(*codes: str) -> Callable[[Damage], Damage]:
    """Register a function under its name."""

    def enter(damage: Damage) -> Damage:
        name = f"{damage.__module__.rpartition('.')[2]}.{damage.__name__}"
        assert name not in CASES
        CASES[name] = Case(damage, frozenset(codes))
        return damage

    return enter
