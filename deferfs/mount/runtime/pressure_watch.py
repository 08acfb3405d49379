"""Wakes the background reclaimer on memory pressure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio


class PressureSource(Protocol):
    """A source of pressure events from the kernel (`host.pressure.open_sources`)."""

    @property
    def name(self) -> str:
        """Name of the source in the statistics."""

    @property
    def fd(self) -> int:
        """Descriptor that becomes readable when there is pressure."""

    @property
    def acknowledge(self) -> Callable[[], object]:
        """Function that clears the readable state of `fd`. BlockingIOError when it was not readable."""

    def close(self) -> None:
        """Stop the events."""


class PressureWatch:
    """Calls `respond` for each event, in tasks of its own."""

    def __init__(self, sources: Sequence[PressureSource], respond: Callable[[], None]) -> None:
        self.sources = sources
        self.respond = respond
        self.events: dict[str, int] = {source.name: 0 for source in sources}

    async def run(self) -> None:
        """Watch until cancelled; then the sources are closed."""
        try:
            async with trio.open_nursery() as nursery:
                for source in self.sources:
                    nursery.start_soon(self._watch, source)
        finally:
            for source in self.sources:
                source.close()

    async def _watch(self, source: PressureSource) -> None:
        while True:
            await trio.lowlevel.wait_readable(source.fd)
            try:
                source.acknowledge()
            except BlockingIOError:
                continue
            self.events[source.name] += 1
            self.respond()
