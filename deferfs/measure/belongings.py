"""What a pass has made and must take away again, whatever comes between: mounts, loop devices, cgroups, processes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Final, TypeVar

T = TypeVar("T")

HELD_BACK: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
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

    before = [(number, signal.signal(number, hold_back)) for number in HELD_BACK]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for first in came[:1]:
            signal.raise_signal(first)


class Belongings(contextlib.ExitStack):
    """An ExitStack whose steps are whole: an interrupt waits until a thing is made *and* known, and until all is taken
    away.
    """

    def acquire(self, thing: AbstractContextManager[T]) -> T:
        """Enter `thing`, which is left with the others."""
        with uninterrupted():
            return self.enter_context(thing)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with uninterrupted():
            super().__exit__(kind, error, trace)
