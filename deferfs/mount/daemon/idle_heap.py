"""What is done with the heap when no request has come for a while: a full collection of garbage, and trimming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from deferfs.mount.daemon import garbage
from deferfs.mount.host import heap

IDLE_SECONDS: Final = 5.0
"""Time without a request after which the heap is trimmed."""


def _collect_and_trim() -> None:
    garbage.collect_all_if_due()
    heap.trim()


async def trim_when_idle(events: Callable[[], int], trim: Callable[[], object] = _collect_and_trim) -> None:
    """Trim once in each pause of the requests. `events` returns the number of requests so far."""
    trimmed = seen = events()
    while True:
        await trio.sleep(IDLE_SECONDS)
        now = events()
        if now == seen != trimmed:
            await trio.to_thread.run_sync(trim)
            trimmed = now
        seen = now
