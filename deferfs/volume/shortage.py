"""Whether memory or space is short. If so, deferred work is done at once, and not delayed for batching."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.limits import MEMORY_RECLAIMED, MEMORY_SHORT, SPACE_SHORT_FRACTION

if TYPE_CHECKING:
    from deferfs.store.memory import Memory
    from deferfs.store.space import FreeSpace


def memory_is_short(memory: Memory) -> bool:
    """Whether operations, which may use the budget up to its reserve, will soon need direct reclaim."""
    return memory.used > MEMORY_SHORT * (memory.limit_bytes - memory.reserve_bytes)


def reclaim_goal(memory: Memory) -> int:
    """Bytes in use at which background reclaim stops."""
    return int(MEMORY_RECLAIMED * (memory.limit_bytes - memory.reserve_bytes))


def space_is_short(space: FreeSpace) -> bool:
    """Whether free blocks are so few that the space of queued inodes may be needed."""
    return space.free_blocks < space.blocks // SPACE_SHORT_FRACTION
