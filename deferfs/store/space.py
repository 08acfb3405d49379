"""Free space: an in-memory index beside the on-disk bitmaps.

Each group has two bit strings. The on-disk `Bitmap` says what is in use in the journaled state; `unavailable` says
what must not be handed out: what is in use, what a running plan holds, and what was freed by a transaction that has
not committed.

**Invariant:** `unavailable` is a superset of the published bitmap's bits; the difference is exactly the held blocks
plus the freed blocks that await a commit. `free` of a group counts its zeros, `free_blocks` is their sum.
"""

from __future__ import annotations

from bitarray import bitarray

from deferfs.limits import RESERVE_BLOCKS_MAX, RESERVE_BLOCKS_MIN, RESERVE_FRACTION
from deferfs.ondisk.format import Format
from deferfs.store.needs import NeedFreeSpace

_RUNS_LOOKED_AT = 32
"""Free runs of one group compared before the longest of them is taken."""


class Group:
    """Availability of the blocks of one group."""

    __slots__ = ("free", "hint", "unavailable")

    def __init__(self, unavailable: bitarray) -> None:
        self.unavailable = unavailable
        self.free = unavailable.count(0)
        self.hint = 0
        """No block below this one is available."""

    def find(self, start: int, want: int) -> tuple[int, int]:
        """(first, length) of the first available run of `want` blocks at or after `start`, or of the longest of
        the runs looked at; length 0 when there is none."""
        bits = self.unavailable
        best, best_length, at = 0, 0, max(start, self.hint)
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
    """Allocation of runs of blocks. Units: blocks."""

    def __init__(self, fmt: Format, blocks: int) -> None:
        self.fmt = fmt
        self.blocks = blocks
        self.groups: list[Group] = []
        self.free_blocks = 0
        self.pending_blocks = 0
        """Freed by transactions that have not committed."""
        self.reserve = min(max(blocks // RESERVE_FRACTION, RESERVE_BLOCKS_MIN), RESERVE_BLOCKS_MAX)
        self.cursor = 0
        """Where the last run without a goal ended: files made one after the other lie side by side."""
        self.epoch = 0
        """Grows whenever freed blocks become reusable: a reader compares it to notice that."""

    def add_group(self, bits: bitarray) -> None:
        group = Group(bits.copy())
        self.groups.append(group)
        self.free_blocks += group.free

    @property
    def available(self) -> int:
        """Blocks an ordinary operation may still take."""
        return max(0, self.free_blocks - self.reserve)

    def hold(self, goal: int, want: int, *, reserve: bool = False) -> tuple[int, int]:
        """Take up to `want` consecutive blocks out of the index, near block `goal` (0: next to the last run).

        Returns (first block, length >= 1); NeedFreeSpace when there is none, and only then. A run lies in one group:
        a caller that wants more takes several. `reserve` allows the blocks kept for operations that free space.
        """
        budget = self.free_blocks if reserve else self.available
        wanted, want = want, min(want, budget)
        if want <= 0:
            raise NeedFreeSpace(wanted)
        near = goal or self.cursor
        best: tuple[int, int, int] | None = None
        size = self.fmt.bits_per_bitmap
        first_group, offset = divmod(near, size)
        if first_group >= len(self.groups):
            first_group, offset = 0, 0
        for turn in range(len(self.groups) + 1):
            number = (first_group + turn) % len(self.groups)
            group = self.groups[number]
            if group.free == 0:
                continue
            start, length = group.find(offset if turn == 0 else 0, want)
            if length and (best is None or length > best[2]):
                best = (number, start, length)
                if length >= want:
                    break
        assert best is not None, "the groups have less than is counted as free"
        number, start, length = best
        group = self.groups[number]
        group.unavailable[start : start + length] = 1
        group.free -= length
        if start == group.hint:
            group.hint = start + length
        self.free_blocks -= length
        first = number * size + start
        if not goal:
            self.cursor = first + length
        return first, length

    def let_go(self, first: int, length: int) -> None:
        """Put held or freed blocks back into the index. A run that was freed may lie in several groups: an extent does
        not end at their boundaries."""
        for number, start, part in self.fmt.parts_in_groups(first, length):
            group = self.groups[number]
            group.unavailable[start : start + part] = 0
            group.free += part
            group.hint = min(group.hint, start)
        self.free_blocks += length

    def release(self, runs: list[tuple[int, int]]) -> None:
        """The transaction that freed these runs is durable: they may be used again."""
        for first, length in runs:
            self.let_go(first, length)
            self.pending_blocks -= length
        if runs:
            self.epoch += 1

    def check(self) -> None:
        """AssertionError when a count is not that of its map. For tests: it looks at every bit."""
        for number, group in enumerate(self.groups):
            zeros = group.unavailable.count(0)
            assert group.free == zeros, f"group {number} counts {group.free} free blocks, its map has {zeros}"
            first = group.unavailable.find(0)
            assert first < 0 or group.hint <= first, f"group {number}: the hint {group.hint} passes block {first}"
        counted = sum(group.free for group in self.groups)
        assert self.free_blocks == counted, f"{self.free_blocks} blocks are free, the groups count {counted}"
