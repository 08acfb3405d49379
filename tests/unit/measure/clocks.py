"""A clock in place of the module `time`."""

from __future__ import annotations

from collections.abc import Callable

MS = 1_000_000


class FakeTime:
    """Moves only during sleeps and operations. Each sleep lasts `overslept` ns too long, and
    calls `asleep` first."""

    def __init__(self) -> None:
        self.now = 0
        self.overslept = 0
        self.asleep: Callable[[], object] = lambda: None

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.asleep()
        self.now += round(seconds * 1e9) + self.overslept
