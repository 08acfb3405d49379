"""Orphans that wait for their inactivation in the orphan table alone: nothing is kept in memory of any one of them.

An orphan that nobody holds is on disk already: its slot in the table names its number, its generation and the blocks it
holds. So beyond a bound inodegc keeps no in-core inode for it, and reads the slots back in batches.

**Invariants**
- A used slot of the table belongs to an inode that is in core, or to one that waits here. `count` and the counts of
  each block of the table are those of the latter; which slots they are follows from the table and the inode cache.
- A block of the table in which any slot waits is linked once, in the order in which the first of them came.
- Of each block of the table 53 bytes are kept, set aside when the table grows: less than half a byte for each orphan
  with blocks of 4 KiB. Coming in allocates nothing; coming in and leaving are O(1).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final, NamedTuple

NONE: Final = -1
_BLOCK_BYTES: Final = 53
_UNKNOWN: Final = 1e300
"""The price of what is not known to hold blocks."""


class Spilled(NamedTuple):
    """An orphan as its slot tells of it: the slot, its number and generation, the blocks it holds."""

    slot: int
    ino: int
    generation: int
    blocks: int


class Candidate(NamedTuple):
    """A block of the table: its number, the blocks that all in it hold, and the price of the cheapest: extents to free
    for each block."""

    price: float
    blocks: int
    number: int


class Spill:
    """What waits in each block of the orphan table. `per_block`: slots in a block."""

    __slots__ = (
        "_before", "_blocks", "_cheapest", "_extents", "_first", "_following", "_hastened", "_last", "_since",
        "_waiting", "count", "extents", "per_block", "urgent",
    )  # fmt: skip

    def __init__(self, per_block: int) -> None:
        self.per_block = per_block
        self.count = 0
        """Orphans that wait here."""
        self.extents = 0
        """Extents that they hold, as far as is known: those of a block of the table leave by equal shares."""
        self.urgent: deque[int] = deque()
        """Blocks of the table that are wanted out of turn."""
        self._waiting = array("I")
        self._blocks = array("q")
        self._extents = array("q")
        self._cheapest = array("d")
        self._since = array("q")
        self._before = array("q")
        self._following = array("q")
        self._hastened = bytearray()
        self._first = self._last = NONE

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes."""
        return len(self._waiting) * _BLOCK_BYTES

    def reserve(self, blocks: int) -> None:
        """The table has so many blocks: room for what will wait in them."""
        new = blocks - len(self._waiting)
        if new <= 0:
            return
        self._waiting.extend([0] * new)
        self._cheapest.extend([_UNKNOWN] * new)
        for numbers in (self._blocks, self._extents, self._since, self._before, self._following):
            numbers.extend([0] * new)
        self._hastened.extend(bytes(new))

    # --- coming in ---
    def put(self, slot: int, blocks: int, extents: int, now_ns: int) -> None:
        """An orphan waits: it holds `blocks` in some `extents`."""
        number = slot // self.per_block
        if not self._waiting[number]:
            self._link(number, now_ns)
        self._waiting[number] += 1
        self._blocks[number] += blocks
        self._extents[number] += extents
        if blocks:
            self._cheapest[number] = min(self._cheapest[number], (1 + extents) / blocks)
        self.count += 1
        self.extents += extents

    def found(self, number: int, count: int, blocks: int, now_ns: int) -> None:
        """At mount: `count` slots of a block of the table are used, by inodes that hold `blocks` together."""
        if not count:
            return
        self._link(number, now_ns)
        self._waiting[number] = count
        self._blocks[number] = blocks
        if blocks:
            self._cheapest[number] = count / blocks
        self.count += count

    # --- leaving ---
    def leave(self, slot: int, blocks: int) -> int:
        """An orphan that holds `blocks` is in core again. What the block of the table was thought to hold beyond those
        that have left it (0 but in a damaged image), when this was the last of it."""
        number = slot // self.per_block
        waiting = self._waiting[number]
        share = self._extents[number] // waiting
        self._waiting[number] = waiting - 1
        self._blocks[number] -= blocks
        self._extents[number] -= share
        self.count -= 1
        self.extents -= share
        return self._empty(number) if waiting == 1 else 0

    def settle(self, number: int) -> int:
        """Nothing waits in this block of the table any more; the blocks that what did was thought to hold."""
        self.count -= self._waiting[number]
        self._waiting[number] = 0
        return self._empty(number)

    def _empty(self, number: int) -> int:
        left = self._blocks[number]
        self.extents -= self._extents[number]
        self._blocks[number] = self._extents[number] = 0
        self._cheapest[number] = _UNKNOWN
        self._unlink(number)
        return left

    # --- what waits ---
    def waits_in(self, number: int) -> int:
        """How many wait in a block of the table."""
        return self._waiting[number] if 0 <= number < len(self._waiting) else 0

    @property
    def blocks(self) -> int:
        """Blocks that all of them hold. Walks the blocks of the table."""
        return sum(self._blocks)

    def since(self, number: int) -> int:
        """When the first that waits in this block of the table came, in ns."""
        return self._since[number]

    def oldest_ns(self) -> int:
        """When the oldest came; 0 when none waits."""
        return 0 if self._first == NONE else self._since[self._first]

    def upcoming(self) -> int:
        """The block of the table to read next; NONE when nothing waits."""
        while self.urgent:
            number = self.urgent[0]
            if self._waiting[number]:
                return number
            self.urgent.popleft()
            self._hastened[number] = 0
        return self._first

    # --- out of turn ---
    def is_hastened(self, number: int) -> bool:
        return self._hastened[number] != 0

    def hasten(self, number: int) -> None:
        """Have this block of the table read before others."""
        if self._waiting[number] and not self._hastened[number]:
            self._hastened[number] = 1
            self.urgent.append(number)

    def hastened_blocks(self) -> int:
        """Blocks held by what is wanted out of turn."""
        total = 0
        for number in self.urgent:
            total += self._blocks[number]
        return total

    def candidates(self) -> list[Candidate]:
        """What holds blocks and is not wanted out of turn yet."""
        found: list[Candidate] = []
        number = self._first
        while number != NONE:
            if self._blocks[number] > 0 and not self._hastened[number]:
                found.append(Candidate(self._cheapest[number], self._blocks[number], number))
            number = self._following[number]
        return found

    # --- the list ---
    def _link(self, number: int, now_ns: int) -> None:
        self._since[number] = now_ns
        self._before[number], self._following[number] = self._last, NONE
        if self._last == NONE:
            self._first = number
        else:
            self._following[self._last] = number
        self._last = number

    def _unlink(self, number: int) -> None:
        before, following = self._before[number], self._following[number]
        if before == NONE:
            self._first = following
        else:
            self._following[before] = following
        if following == NONE:
            self._last = before
        else:
            self._before[following] = before
