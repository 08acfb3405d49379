"""How many examples property tests, crash explorations and sweeps of damage draw: fewer in the usual run, all of them
with --long or --fresh, in the night."""

from __future__ import annotations

from typing import Final

USUAL_FRACTION: Final = 2
"""The usual run draws one example in two. What it draws is the same each time."""
_all = True


def draw_all(wanted: bool) -> None:
    """Called once, before test modules are imported."""
    global _all
    _all = wanted


def examples(count: int) -> int:
    """How many to draw where the night draws `count`; what to give `max_examples`."""
    return count if _all else -(-count // USUAL_FRACTION)
