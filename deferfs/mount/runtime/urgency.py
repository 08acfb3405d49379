"""How urgent cleanups are: whether inodegc gathers batches, stands back for requests and keeps to its pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.limits import GC_STAND_BACK_INODES
from deferfs.mount.runtime.pulse import Pulse
from deferfs.mount.runtime.shortage import memory_is_short, space_is_short

if TYPE_CHECKING:
    from deferfs.reclaim.gc import InodeGc
    from deferfs.store.memory import Memory
    from deferfs.store.space import FreeSpace


class Urgency:
    """Of the backlog of one volume."""

    def __init__(self, gc: InodeGc, memory: Memory, space: FreeSpace) -> None:
        self._gc = gc
        self._memory = memory
        self._space = space
        self.hurry = Pulse()
        """Set when the end of cleanups is waited for, or asked for, until nothing is left to do."""
        self.waiters: list[Callable[[], int]] = []
        """Each returns how many callers wait until the backlog is shorter."""

    @property
    def waited_for(self) -> bool:
        """Whether an operation, a barrier or a throttled caller waits for cleanups."""
        return bool(self.hurry.is_set or self._gc.wanted_out_of_turn or any(count() for count in self.waiters))

    @property
    def short_of_space(self) -> bool:
        """Whether freed blocks will be wanted."""
        return space_is_short(self._space)

    @property
    def short(self) -> bool:
        """Whether freed blocks or memory will be wanted."""
        return memory_is_short(self._memory) or self.short_of_space

    @property
    def wanted(self) -> bool:
        """Whether cleanups are waited for, or what they give back will be wanted."""
        return self.waited_for or self.short

    @property
    def pressed(self) -> bool:
        """Whether cleanups are waited for, or will be soon."""
        return self.wanted or self._gc.queued > GC_STAND_BACK_INODES
