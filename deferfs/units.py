"""Sizes and times as people write and read them.

A number has a fixed number of decimals, for columns, or three significant digits, for reports that compare.
"""

from __future__ import annotations

import math
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


def three_digits(value: float) -> str:
    """Three significant digits without an exponent, for values from 0.01 up."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:.{min(decimals, 2)}f}"


def format_size(size: float, *, significant: bool = False) -> str:
    """A size in bytes for people: `512 B`, `1.0 KiB`, `64.0 MiB`; `significant`: `1.20 GiB`."""
    if size < 1024:
        return f"{size:.0f} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1000:
            return f"{_number(value, unit, significant)} {unit}"
    return f"{_number(value / 1024, 'PiB', significant)} PiB"


def format_ns(nanoseconds: float, *, significant: bool = False) -> str:
    """A time in ns for people: `850 ns`, `12.3 us`, `4.6 ms`, `4.56 s`; `significant`: `4.56 ms`, `75.0 s`."""
    if nanoseconds < 999.5:
        return f"{nanoseconds:.0f} ns"
    value = float(nanoseconds)
    for unit in ("us", "ms"):
        value /= 1000
        if value < 999.5:
            return f"{_number(value, unit, significant)} {unit}"
    return f"{_number(value / 1000, 's', significant)} s"


def format_duration(seconds: float) -> str:
    """A time in s that may be days: `12 s`, `3 min 20 s`, `5 h 12 min`, `4 d 3 h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _number(value: float, unit: str, significant: bool) -> str:
    """The number before `unit`: in a column one decimal, but two for seconds, which have no larger unit."""
    if significant:
        return three_digits(value)
    return f"{value:.{2 if unit == 's' else 1}f}"
