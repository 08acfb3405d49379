"""Pressure stall information: how long tasks waited for memory, CPU or IO.

The format is that of the kernel's Documentation/accounting/psi.rst:

    some avg10=0.00 avg60=0.00 avg300=0.00 total=1234
    full avg10=0.00 avg60=0.00 avg300=0.00 total=567
"""

from __future__ import annotations

from pathlib import Path

import msgspec


class Pressure(msgspec.Struct, frozen=True):
    """Stall totals in microseconds: `some` task waited, or all of them at once (`full`)."""

    some_us: int
    full_us: int

    def since(self, before: Pressure) -> Pressure:
        """The increase since `before`."""
        return Pressure(self.some_us - before.some_us, self.full_us - before.full_us)


def parse_pressure(text: str) -> Pressure:
    """The totals of a pressure file; a missing line (cpu.pressure of old kernels has no `full`) counts as 0."""
    totals = {"some": 0, "full": 0}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        for field in rest.split():
            key, _, value = field.partition("=")
            if key == "total" and kind in totals:
                totals[kind] = int(value)
    return Pressure(totals["some"], totals["full"])


def read_pressure(path: Path) -> Pressure | None:
    """The totals of `path`, or None where the kernel has no such file or does not account for it."""
    try:
        return parse_pressure(path.read_text())
    except OSError:
        return None
