"""Instruments of a runtime: the timeline, durations by request and by cause, and the checker of reclaim context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deferfs.mount.runtime.activity import Activity
from deferfs.mount.runtime.timeline import Sampler, Timeline, create_no_file
from deferfs.mount.runtime.waits import Timings, Waits
from deferfs.reclaim.context import ReclaimChecker


class Instruments:
    """`sample` returns the counters of the timeline, `create_file` creates its file; `strict`: a wait in reclaim
    context is fatal."""

    def __init__(
        self, sample: Sampler = dict, create_file: Callable[[str], int] = create_no_file, *, strict: bool = False
    ) -> None:
        self.timeline = Timeline(sample, create_file)
        self.activity = Activity(self.timeline)
        self.waits = Waits(self.activity)
        """Waits by cause, and by the request that waited."""
        self.requests = Timings()
        """Durations of requests by kind."""
        self.checker = ReclaimChecker(strict=strict)
        self.checker.on_violation = self.activity.instant

    @contextmanager
    def working(self, name: str, *lock_classes: str) -> Iterator[None]:
        """Run the body as background task `name`, for which other tasks may be waiting (`lock_classes`)."""
        with self.checker.holding(name, *lock_classes), self.activity.span(name):
            yield
