"""Ctrl-C, SIGTERM and SIGHUP: the first one ends the measuring, and none disturbs what is being undone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Turns the first signal into a KeyboardInterrupt. The ones after it are answered by a line: by then everything is
    being undone, and to break that off would leave mounts and cgroups behind.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
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

    def _interrupt(self, number: int, _frame: object) -> None:
        if self.number:
            self._tell("removing what was made; this takes a moment")
            return
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP take effect at the end of the block. For steps that must not be done by half: what a
    command has mounted just before its end would be known to nothing that takes it away.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread alone
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
