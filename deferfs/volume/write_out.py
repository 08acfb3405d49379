"""Writeout of file data: written into the page cache of the image, followed by a barrier before it gets too much.

Otherwise an fsync would wait for all data that any process has written since the last commit. And the kernel would
block the daemon's only thread in a write(2) when too much of the image is dirty in its page cache
(`balance_dirty_pages`, 0.2 s at a time; earlier in a memory cgroup): all requests would wait then, without being
accounted.

**Invariants**
- `unflushed_bytes` is an upper bound of the data written since the last barrier: barriers of commits are not counted.
- A request that writes waits before it plans, holding nothing, while it exceeds `bytes_max`. Others do not wait.
- A failed barrier aborts the journal, as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import (
    WRITE_OUT_BYTES_MAX,
    WRITE_OUT_BYTES_MIN,
    WRITE_OUT_FRACTION,
    WRITE_OUT_START_FRACTION,
    WRITE_OUT_WAITS_BUDGET_MIN,
)
from deferfs.volume.waits import DataFlushed, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine


def _nothing() -> None:
    """Default of the callbacks."""


class WriteOut:
    """Writeout of one volume. `on_due`: a barrier is due; `on_flushed`: one has ended. Both must be cheap."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory = engine.store.memory
        self.bytes_max = 0
        """Unflushed data above which requests that write wait. It takes page cache, which a memory cgroup counts, so it
        is a share of the budget."""
        self._due_above = 0
        self._holds_up = False
        """Whether requests wait at all."""
        self._memory.on_limit.append(self._follow_budget)
        self._follow_budget()
        self.unflushed_bytes = 0
        self.flushes_total = 0
        self.on_due: Callable[[], None] = _nothing
        self.on_flushed: Callable[[], None] = _nothing

    def _follow_budget(self) -> None:
        budget = self._memory.limit_bytes
        self.bytes_max = min(max(budget // WRITE_OUT_FRACTION, WRITE_OUT_BYTES_MIN), WRITE_OUT_BYTES_MAX)
        self._due_above = self.bytes_max // WRITE_OUT_START_FRACTION
        self._holds_up = budget >= WRITE_OUT_WAITS_BUDGET_MIN

    @property
    def due(self) -> bool:
        """Whether a barrier should begin."""
        return self.unflushed_bytes > self._due_above and self._possible

    @property
    def too_much(self) -> bool:
        """Whether requests that write have to wait."""
        return self.unflushed_bytes > self.bytes_max and self._holds_up and self._possible

    @property
    def _possible(self) -> bool:
        return self._engine.store.journal.aborted is None

    def wrote(self, count: int) -> None:
        """Count `count` bytes of file data written."""
        self.unflushed_bytes += count
        if self.due:
            self.on_due()

    def flush(self) -> Task[None]:
        """Issue one barrier. EIO when it fails, or after an abort."""
        count = self.unflushed_bytes
        yield from self._engine.durability.flush()
        self.unflushed_bytes -= count
        self.flushes_total += 1
        self.on_flushed()

    def let_in(self) -> Task[None]:
        """Before a request that writes: wait while too much data is unflushed."""
        if self.too_much:
            self._engine.checker.might_wait("io")
            with self._engine.measure("io"):
                yield DataFlushed(self)
