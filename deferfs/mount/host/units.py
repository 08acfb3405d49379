"""Sizes as people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from deferfs.errors import UsageError

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_SHIFTS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
SIZE_BYTES_MAX: Final = 1 << 62
"""Anything larger does not fit the signed 64-bit offsets of the system calls."""


def parse_size(text: str) -> int:
    """Bytes of a size such as `4096`, `64K`, `1.5G` or `1GiB`: all powers of 1024. UsageError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size; write a number with an optional K, M, G, T or P")
    exact = Fraction(match[1]) * (1 << _SHIFTS[match[2].upper()])
    if exact.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    size = exact.numerator
    if size > SIZE_BYTES_MAX:
        raise UsageError(f"{text!r} is too large for any file")
    return size


def format_size(size: int) -> str:
    """A size for people, at most four digits: `512 B`, `1.0 KiB`, `64.0 MiB`."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1000:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"
