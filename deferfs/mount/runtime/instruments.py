"""What observes a runtime: the timeline, times by request and by cause, and the checker of reclaim context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deferfs.mount.runtime.activity import Activity
from deferfs.mount.runtime.timeline import Sampler, Timeline, create_no_file
from deferfs.mount.runtime.waits import Timings, Waits
from deferfs.reclaim.context import ReclaimChecker


class Instruments:
    """`sample` gives the timeline its curves, `create_file` its file; `strict`: a wait in reclaim context is fatal."""

    def __init__(
        self, sample: Sampler = dict, create_file: Callable[[str], int] = create_no_file, *, strict: bool = False
    ) -> None:
        self.timeline = Timeline(sample, create_file)
        self.activity = Activity(self.timeline)
        self.waits = Waits(self.activity)
        """By cause, and by the request that waited."""
        self.requests = Timings()
        """By kind."""
        self.checker = ReclaimChecker(strict=strict)
        self.checker.on_violation = self.activity.instant

    @contextmanager
    def working(self, name: str, *lock_classes: str) -> Iterator[None]:
        """A background task does what others may be waiting for."""
        with self.checker.holding(name, *lock_classes), self.activity.span(name):
            yield
