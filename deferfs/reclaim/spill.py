"""Orphans that wait for inactivation only in the orphan table, without any in-core state of their own.

An orphan without active references is on disk already: its slot has its number, its generation and the blocks it holds.
So beyond a bound inodegc keeps no in-core inode for it, and reads the slots back in batches.

**Invariants**
- A used slot of the table belongs to an inode that is in core, or to one that waits here. `count` and the counts per
  table block are those of the latter; which slots they are follows from the table and the inode cache.
- A table block in which any slot waits is on the list once, in order of the arrival of its first slot.
- Each table block takes 53 bytes, allocated when the table grows: less than half a byte per orphan with blocks of
  4 KiB. Adding allocates nothing; adding and leaving are O(1).
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import Final, NamedTuple

NONE: Final = -1
"""No table block."""
_BLOCK_BYTES: Final = 53
"""Memory per table block: the sum of the item sizes of the arrays below."""
_UNKNOWN: Final = 1e300
"""The price of an orphan that is not known to hold blocks."""


class Spilled(NamedTuple):
    """An orphan as recorded in its slot; `blocks`: the blocks it holds."""

    slot: int
    ino: int
    generation: int
    blocks: int


class Candidate(NamedTuple):
    """A table block: `price` of its cheapest orphan, in extents to free per block gained; `blocks` held by all."""

    price: float
    blocks: int
    number: int


class Spill:
    """The waiting orphans, counted by table block. `per_block`: slots in a table block."""

    __slots__ = (
        "_before", "_blocks", "_cheapest", "_extents", "_first", "_following", "_hastened", "_last", "_since",
        "_waiting", "count", "extents", "per_block", "urgent",
    )  # fmt: skip

    def __init__(self, per_block: int) -> None:
        self.per_block = per_block
        self.count = 0
        """Waiting orphans."""
        self.extents = 0
        """Extents they hold, as far as is known; an orphan that leaves takes an equal share of its table block's."""
        self.urgent: deque[int] = deque()
        """Table blocks to be read out of turn."""
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
        """Allocate counters for a table of `blocks` blocks."""
        new = blocks - len(self._waiting)
        if new <= 0:
            return
        self._waiting.extend([0] * new)
        self._cheapest.extend([_UNKNOWN] * new)
        for numbers in (self._blocks, self._extents, self._since, self._before, self._following):
            numbers.extend([0] * new)
        self._hastened.extend(bytes(new))

    # --- adding ---
    def put(self, slot: int, blocks: int, extents: int, now_ns: int) -> None:
        """Add an orphan that holds `blocks` in about `extents` extents."""
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
        """At mount: add the `count` used slots of a table block, whose inodes hold `blocks` together."""
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
        """An orphan that holds `blocks` is in core again. When it was the last of its table block, returns the surplus
        in the block's count (0 unless the image is damaged)."""
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
        """Drop what is counted in this table block; returns the blocks that were counted as held."""
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

    # --- queries ---
    def waits_in(self, number: int) -> int:
        """Orphans that wait in a table block."""
        return self._waiting[number] if 0 <= number < len(self._waiting) else 0

    @property
    def blocks(self) -> int:
        """Blocks held by all waiting orphans. O(table blocks)."""
        return sum(self._blocks)

    def since(self, number: int) -> int:
        """When the first orphan of this table block was added, in ns."""
        return self._since[number]

    def oldest_ns(self) -> int:
        """When the oldest was added, in ns; 0 when none waits."""
        return 0 if self._first == NONE else self._since[self._first]

    def upcoming(self) -> int:
        """The table block to read next; NONE when no orphan waits."""
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
        """Read this table block before others."""
        if self._waiting[number] and not self._hastened[number]:
            self._hastened[number] = 1
            self.urgent.append(number)

    def hastened_blocks(self) -> int:
        """Blocks held by orphans in urgent table blocks."""
        total = 0
        for number in self.urgent:
            total += self._blocks[number]
        return total

    def candidates(self) -> list[Candidate]:
        """Table blocks that hold blocks and are not urgent yet."""
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
