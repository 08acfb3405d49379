"""The resources that a pass has acquired and must release in any case: mounts, loop devices, cgroups, processes."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TypeVar

from deferfs.measure.host.interrupts import uninterrupted

T = TypeVar("T")


class Belongings(contextlib.ExitStack):
    """An ExitStack with atomic steps: an interrupt is delayed until a resource is acquired *and* recorded, and until
    all are released.
    """

    def acquire(self, thing: AbstractContextManager[T]) -> T:
        """Enter `thing`, to be exited with the others."""
        with uninterrupted():
            return self.enter_context(thing)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with uninterrupted():
            super().__exit__(kind, error, trace)
