"""Ctrl-C, SIGTERM and SIGHUP: the first one ends the measurement, and none interrupts the cleanup."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns the first signal into a KeyboardInterrupt. Later ones only print a line: the cleanup is running by then,
    and interrupting it would leave mounts and cgroups behind.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self.number = 0
        """The first signal; 0 when none came."""

    @contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Install the handlers for the length of the block."""
        before = {number: signal.signal(number, self._interrupt) for number in NUMBERS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, _frame: object) -> None:
        if self.number:
            self._tell("removing what was made; this takes a moment")
            return
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP to the end of the block. For steps that must be atomic: a mount made just before
    an interrupt would not be recorded, and never unmounted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread only
        return
    came: list[int] = []

    def hold_back(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = [(number, signal.signal(number, hold_back)) for number in NUMBERS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)
