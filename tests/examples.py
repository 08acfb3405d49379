"""How many examples property tests, crash explorations and sweeps of damage draw: fewer in the usual run, all of them
with --long or --fresh, in the night. And which combinations of modes the usual run leaves to --long."""

from __future__ import annotations

from typing import Any, Final

import pytest

USUAL_FRACTION: Final = 8
"""The usual run draws one example in eight. What it draws is the same each time."""
_all = True


def draw_all(wanted: bool) -> None:
    """Called once, before test modules are imported."""
    global _all
    _all = wanted


def examples(count: int) -> int:
    """How many to draw where the night draws `count`; what to give `max_examples`."""
    return count if _all else -(-count // USUAL_FRACTION)


def stride(step: int) -> int:
    """Of a long row of cases, which one to take next where the night takes each `step`-th of them."""
    return step if _all else step * USUAL_FRACTION


def night(*values: Any) -> Any:
    """Values of a parametrized test that only --long takes: what they combine is in the usual run by other
    combinations, or on a smaller scale."""
    return pytest.param(*values, marks=pytest.mark.long)
