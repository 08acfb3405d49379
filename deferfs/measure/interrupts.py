"""Ctrl-C, SIGTERM and SIGHUP: the first one ends the measuring, and none disturbs what is being undone."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns the first signal into a KeyboardInterrupt. The ones after it are answered by a line: by then everything is
    being undone, and to break that off would leave mounts and cgroups behind.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._held = 0
        self._waiting = False
        self.number = 0
        """The signal that came first; 0 when none came."""

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """The handlers, for the length of the block."""
        before = {number: signal.signal(number, self._interrupt) for number in NUMBERS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A block that is not interrupted; what came meanwhile interrupts at its end."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self._waiting:
                self._waiting = False
                raise KeyboardInterrupt

    def _interrupt(self, number: int, _frame: object) -> None:
        if self.number:
            self._tell("removing what was made; this takes a moment")
            return
        self.number = number
        if self._held:
            self._waiting = True
            return
        raise KeyboardInterrupt
