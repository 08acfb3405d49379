"""Free space: two numbers per group, beside the on-disk bitmaps.

The bitmaps are blocks like any other: read when searched, evicted when memory is short. A published bitmap says what is
in use in the journaled state. `withheld` marks blocks that must not be allocated although their bit is clear: those
held by a running plan, and those freed by a transaction that has not committed. It is kept only for groups that have
such blocks.

**Invariants:** a block is available when neither its published bit nor its withheld bit is set. `counts[g]` is the
number of available blocks of group g, `free_blocks` their sum; no block of the group below `hints[g]` is available.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

from bitarray import bitarray

from deferfs.limits import RESERVE_BLOCKS_MAX, RESERVE_BLOCKS_MIN, RESERVE_FRACTION
from deferfs.ondisk.format import Format
from deferfs.store.needs import NeedBlocks, NeedFreeSpace

_RUNS_LOOKED_AT = 32
"""Free runs of one group that are compared before the longest is taken."""
_GROUPS_LOOKED_AT = 16
"""Groups with free blocks that are searched before the longest run so far is taken: each may have to be read."""
GROUP_BYTES = 8
"""Resident bytes of a group whose bitmap is not cached."""


def _find(bits: bitarray, start: int, want: int) -> tuple[int, int]:
    """(first, length) of the first available run of `want` blocks at or after `start`, or of the longest of the first
    _RUNS_LOOKED_AT runs; length 0 when there is none."""
    best, best_length, at = 0, 0, start
    for _ in range(_RUNS_LOOKED_AT):
        first = bits.find(0, at)
        if first < 0:
            break
        end = bits.find(1, first, min(first + want, len(bits)))
        if end < 0:
            end = min(first + want, len(bits))
        if end - first > best_length:
            best, best_length = first, end - first
            if best_length >= want:
                break
        at = end
    return best, best_length


class FreeSpace:
    """Allocation of runs of blocks. Units: blocks.

    `published` returns the cached bitmap of a group, not to be changed; it raises NeedBlocks when it is not cached.
    """

    def __init__(self, fmt: Format, blocks: int, published: Callable[[int], bitarray]) -> None:
        self.fmt = fmt
        self.blocks = blocks
        self.published = published
        self.counts: array[int] = array("I")
        self.hints: array[int] = array("I")
        self.withheld: dict[int, bitarray] = {}
        self.free_blocks = 0
        self.pending_blocks = 0
        """Blocks freed by transactions that have not committed."""
        self.reserve = min(max(blocks // RESERVE_FRACTION, RESERVE_BLOCKS_MIN), RESERVE_BLOCKS_MAX)
        self.cursor = 0
        """End of the last run allocated without a goal: files created one after the other are laid out contiguously."""
        self.epoch = 0
        """Incremented whenever freed blocks become reusable, so that a waiter can detect that."""

    def add_group(self, bits: bitarray) -> None:
        """Count the next group from its bitmap as on disk, which is not kept."""
        free = bits.count(0)
        self.counts.append(free)
        self.hints.append(bits.find(0) if free else 0)
        self.free_blocks += free

    @property
    def resident_bytes(self) -> int:
        """Resident bytes, without cached bitmaps."""
        return GROUP_BYTES * len(self.counts) + len(self.withheld) * (self.fmt.block_size + 200)

    @property
    def available(self) -> int:
        """Blocks an ordinary operation can still allocate."""
        return max(0, self.free_blocks - self.reserve)

    def unavailable(self, group: int) -> bitarray:
        """The bits of blocks that must not be allocated, not to be changed. NeedBlocks."""
        published = self.published(group)
        withheld = self.withheld.get(group)
        return published if withheld is None else published | withheld

    def hold(self, goal: int, want: int, *, reserve: bool = False) -> tuple[int, int]:
        """Take up to `want` consecutive blocks out of the index, near block `goal` (0: next to the last run).

        Returns (first block, length >= 1); NeedFreeSpace only when no block is free; NeedBlocks for a bitmap. A run
        lies in one group: a caller that wants more takes several. `reserve` allows the blocks reserved for operations
        that free space.
        """
        budget = self.free_blocks if reserve else self.available
        wanted, want = want, min(want, budget)
        if want <= 0:
            raise NeedFreeSpace(wanted)
        number, start, length = self._search(goal or self.cursor, want)
        self._withhold(number, start, length)
        self.counts[number] -= length
        if start == self.hints[number]:
            self.hints[number] = start + length
        self.free_blocks -= length
        first = number * self.fmt.bits_per_bitmap + start
        if not goal:
            self.cursor = first + length
        return first, length

    def _search(self, near: int, want: int) -> tuple[int, int, int]:
        """(group, offset in it, length) of the first run of `want` blocks from `near` on, or of the longest of those
        searched."""
        groups = len(self.counts)
        first_group, offset = divmod(near, self.fmt.bits_per_bitmap)
        if first_group >= groups:
            first_group, offset = 0, 0
        best_group, best, best_length, looked_at = 0, 0, 0, 0
        for turn in range(groups + 1):
            number = (first_group + turn) % groups
            if self.counts[number] <= best_length:
                continue
            start = max(self.hints[number], offset if turn == 0 else 0)
            start, length = _find(self.unavailable(number), start, want)
            if length > best_length:
                best_group, best, best_length = number, start, length
            looked_at += 1
            if best_length >= want or (best_length and looked_at >= _GROUPS_LOOKED_AT):
                break
        assert best_length, "the groups have less than is counted as free"
        return best_group, best, best_length

    def _withhold(self, group: int, start: int, length: int) -> None:
        bits = self.withheld.get(group)
        if bits is None:
            bits = self.withheld[group] = bitarray(self.fmt.bits_per_bitmap, endian="little")
        bits[start : start + length] = 1

    def _give(self, group: int, start: int, length: int) -> None:
        """Undo `_withhold`."""
        bits = self.withheld[group]
        bits[start : start + length] = 0
        if not bits.any():
            del self.withheld[group]

    def applied(self, held: list[tuple[int, int]], freed: list[tuple[int, int]]) -> None:
        """A plan was applied: its published bitmaps mark the blocks it allocated, and no longer those it freed, which
        stay withheld until its transaction has committed."""
        for first, length in held:
            for number, start, part in self.fmt.parts_in_groups(first, length):
                self._give(number, start, part)
        for first, length in freed:
            for number, start, part in self.fmt.parts_in_groups(first, length):
                self._withhold(number, start, part)
            self.pending_blocks += length

    def let_go(self, first: int, length: int) -> None:
        """Return held or freed blocks to the index. A freed run may span several groups: extents can cross their
        boundaries."""
        for number, start, part in self.fmt.parts_in_groups(first, length):
            self._give(number, start, part)
            self.hints[number] = min(self.hints[number], start) if self.counts[number] else start
            self.counts[number] += part
        self.free_blocks += length

    def release(self, runs: list[tuple[int, int]]) -> None:
        """The transaction that freed these runs is durable: make them available."""
        for first, length in runs:
            self.let_go(first, length)
            self.pending_blocks -= length
        if runs:
            self.epoch += 1

    def check(self) -> None:
        """AssertionError when a count does not match its bitmap. For tests: it scans every cached bitmap."""
        for group, count in enumerate(self.counts):
            try:
                bits = self.unavailable(group)
            except NeedBlocks:
                continue
            zeros = bits.count(0)
            assert count == zeros, f"group {group} counts {count} free blocks, its map has {zeros}"
            first = bits.find(0)
            assert first < 0 or self.hints[group] <= first, f"group {group}: the hint passes block {first}"
        assert self.free_blocks == sum(self.counts), "the sum of the groups is another"
