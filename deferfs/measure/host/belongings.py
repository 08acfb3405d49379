"""What a pass has made and must take away again, whatever comes between: mounts, loop devices, cgroups, processes."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from deferfs.measure.host.interrupts import uninterrupted

T = TypeVar("T")


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
