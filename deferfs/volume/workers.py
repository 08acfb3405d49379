"""How a worker of inodegc goes about its queue: when it stands back for requests, whether a batch gathers, and how
large one is. What becomes of each inode is decided in `cleanup.py`.

**Invariants**
- While requests stream in, a worker that has something to do stands back, but for GC_LOOKS_MAX looks at most: cleanup
  has its share of the time. Not at all where cleanup is waited for, will be soon, or where memory or space is short.
- A batch gathers for `delay_seconds` at most, and not beyond GC_BATCH inodes; not at all where memory or space is
  short, or an inode of a queue is waited for.
- A batch is no larger than the pace lets be done at once, unless cleanup is waited for.
- An empty batch is progress only when it leaves nothing to do. A barrier pushes again after each progress, and a push
  wakes workers: with other workers busy, the two would wake each other without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import GC_BATCH, GC_DELAY_SECONDS, GC_LOOK_SECONDS, GC_LOOKS_MAX
from deferfs.volume.waits import Gathered, StoodBack, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


def _none() -> int:
    return 0


def _not_told(number: int) -> None:
    """Default of a callback: there is no driver to notify."""


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class Workers:
    """Of one volume. `on_queued(n)`: queue `n` has something to take; `on_idle`: there was nothing left to take.

    `requests` tells how many requests there have been: a driver may replace it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cleanup = engine.cleanup
        self._gc = engine.volume.gc
        self.delay_seconds: float = GC_DELAY_SECONDS
        self.requests: Callable[[], int] = _none
        self.on_queued: Callable[[int], None] = _not_told
        self.on_idle: Callable[[], None] = _nothing
        self.gathered = False
        """A batch is there, or must not gather any longer."""
        self._requests_seen: dict[int, int] = {}
        """Requests there had been when a worker looked last."""
        self._gc.wake = self._queued

    def _queued(self, number: int) -> None:
        wanted = self._gc.wanted_out_of_turn
        if wanted:
            self._cleanup.hasten()
        if wanted or self._gc.queues[number % len(self._gc.queues)].depth >= GC_BATCH:
            self.gathered = True
        self.on_queued(number)

    def stand_back(self, number: int) -> Task[None]:
        """While requests stream in, cleaning up can wait: until they pause or it is pressed for, and only for so many
        looks."""
        if not self._gc.has_work(number):
            return
        for _ in range(GC_LOOKS_MAX):
            requests = self.requests()
            if requests == self._requests_seen.get(number) or self._cleanup.pressed():
                return
            self._requests_seen[number] = requests
            yield StoodBack(self._cleanup, GC_LOOK_SECONDS)

    def gather(self, number: int) -> Task[None]:
        """Something was queued: let a batch come together."""
        if self._cleanup.short() or self._gc.queues[number].depth >= GC_BATCH or self.gathered:
            return
        if self.delay_seconds:
            yield Gathered(self, self.delay_seconds)

    def batch(self, number: int) -> Task[bool]:
        """Take a batch and clean it up; False when there is nothing to do."""
        cleanup = self._cleanup
        count_max = GC_BATCH if cleanup.wanted() else self._engine.turns.pace.batch(GC_BATCH)
        worked = yield from cleanup.run_batch(count_max, number)
        if not worked and not cleanup.pushed:
            self.gathered = False
            self.on_idle()
            cleanup.told()
        return worked
