"""Memory comes back before it is short: when the shrinkers run in the background, how much they are asked for, and what
follows when they find nothing. An operation that lacks memory runs them itself (`eviction.py`).

A driver runs `run` when it is `due`, one at a time.

**Invariants**
- It is due when memory is short (`shortage.py`), looked at as operations go by and whenever something has come home;
  when the budget is changed or the task is switched on; and when the kernel is short of memory.
- It ends at its goal (FORGETs that wait to be counted included), or when no shrinker finds anything: then the kernel
  has been asked to drop inodes, has forgotten none, and a commit and a checkpoint are asked for, whose end has memory
  looked at again. So what can become free does, without a wait of an operation.
- It asks for PIECE_BYTES at a time, and others run when one more piece would make a turn of the event loop too long
  (`Turns.turn_ns`): an inode takes as long as several blocks, which are many times as large.
- Switched off, it frees nothing: all reclaim is direct, as in a memory cgroup, which has no kswapd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from deferfs.limits import INODE_COST_BYTES, PRESSURE_FRACTION
from deferfs.volume.shortage import memory_is_short, reclaim_goal
from deferfs.volume.turns import TurnTimer
from deferfs.volume.waits import EntriesDropped, Reschedule, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

PIECE_BYTES: Final = 1 << 14
"""What the shrinkers are asked for at a time: some 50 inodes."""
WAITING_PIECE_BYTES: Final = 1 << 18
"""The same where inactivations are waited for. A piece brings a batch of them (SHRINK_BATCH), however small it is: with
smaller ones, more inodes would be inactivated for the blocks that are evicted."""
FORGET_TURNS_MAX: Final = 64
"""Turns of the event loop until a FORGET is expected that the kernel has queued: it puts no more than a few requests
before one."""


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class BackgroundReclaim:
    """Of one volume. `on_due`: it is due. `works`: whether it does anything at all."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory = engine.store.memory
        self.works = True
        self.due = False
        self.on_due: Callable[[], None] = _nothing
        self._pressed_to = 0
        """Bytes that the kernel's memory pressure asks us to come down to; 0: there is none."""

    # --- asking ---
    def look(self) -> None:
        """Cheap: begin when memory is short."""
        if self.works and memory_is_short(self._memory):
            self._ask()

    def set_works(self, works: bool) -> None:
        """Switch it on or off; on, it looks at once."""
        self.works = works
        if works:
            self._ask()

    def set_memory(self, limit_bytes: int) -> None:
        """Set the budget; one below what is in use is reached without an operation."""
        self._memory.set_limit(limit_bytes)
        self.look()

    def under_pressure(self) -> None:
        """The kernel is short of memory: give a part of ours back, and clean up without delay. Switched off, the memory
        stays until an operation needs it."""
        self._pressed_to = max(1, self._memory.used * (PRESSURE_FRACTION - 1) // PRESSURE_FRACTION)
        self._ask()
        self._engine.cleanup.push()

    def _ask(self) -> None:
        self.due = True
        self.on_due()

    # --- reclaiming ---
    def run(self) -> Task[None]:
        """Piece by piece, down to the goal, or until nothing more comes."""
        self.due = False
        while self.works:
            over = self._memory.used - self._goal() - self._engine.forgetting.waiting * INODE_COST_BYTES
            if over <= 0:
                break
            freed = yield from self._turn(over)
            if not freed:
                freed = yield from self._forgotten(over)
            yield Reschedule()
            if not freed:
                self._engine.write_back.ask()  # all that is left is dirty or in use
                break
        self._pressed_to = 0

    def _turn(self, over: int) -> Task[int]:
        """Piece by piece for the length of a turn, or until `over` bytes are free, or nothing more comes; bytes
        freed."""
        eviction, timer, freed = self._engine.eviction, TurnTimer(self._engine.turns), 0
        while freed < over:
            most = PIECE_BYTES if eviction.defers else WAITING_PIECE_BYTES
            piece = yield from eviction.background_reclaim(min(over - freed, most))
            freed += piece
            if not piece or timer.over(waited=not eviction.defers):
                break
        return freed

    def _forgotten(self, over: int) -> Task[int]:
        """Have the kernel drop inodes, and wait until some of its FORGETs have been read; the bytes that can be
        reclaimed then. An inode that the kernel uses is not forgotten, so what it was asked for does not count."""
        forgetting = self._engine.forgetting
        before = forgetting.inodes_total
        if (yield EntriesDropped(over)):
            for _ in range(FORGET_TURNS_MAX):
                if forgetting.inodes_total > before:
                    break
                yield Reschedule()
        return (forgetting.inodes_total - before) * INODE_COST_BYTES

    def _goal(self) -> int:
        """Bytes that may stay in use."""
        goal = reclaim_goal(self._memory)
        return min(goal, self._pressed_to) if self._pressed_to else goal
