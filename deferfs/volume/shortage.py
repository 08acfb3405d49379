"""When memory or space is short: what has been put off is done then, and no task waits for company."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.limits import MEMORY_RECLAIMED, MEMORY_SHORT, SPACE_SHORT_FRACTION

if TYPE_CHECKING:
    from deferfs.store.memory import Memory
    from deferfs.store.space import FreeSpace


def memory_is_short(memory: Memory) -> bool:
    """Whether operations will soon have to reclaim memory themselves, which may use the budget up to its reserve."""
    return memory.used > MEMORY_SHORT * (memory.limit_bytes - memory.reserve_bytes)


def reclaim_goal(memory: Memory) -> int:
    """Bytes in use at which background reclaim leaves off."""
    return int(MEMORY_RECLAIMED * (memory.limit_bytes - memory.reserve_bytes))


def space_is_short(space: FreeSpace) -> bool:
    """Whether so few blocks are free that what waits to be cleaned up may be wanted."""
    return space.free_blocks < space.blocks // SPACE_SHORT_FRACTION
