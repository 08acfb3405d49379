"""The owners of blocks: a map built from scratch, one bit per block of the image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from bitarray import bitarray

Run = tuple[int, int]
"""(first, end): a half-open range of blocks."""

CONTESTED_MAX: Final = 10_000
"""Runs of shared blocks that are remembered; an image with more is beyond a report that names each."""


def runs_of_ones(bits: bitarray, start: int = 0, end: int | None = None) -> Iterator[Run]:
    """The runs of set bits in `bits[start:end]`, which must not change meanwhile."""
    stop = len(bits) if end is None else end
    at = bits.find(1, start, stop)
    while at >= 0:
        after = bits.find(0, at, stop)
        after = stop if after < 0 else after
        yield at, after
        at = bits.find(1, after, stop)


def blocks_text(first: int, end: int) -> str:
    """The run in words: one block by its number, several as a range."""
    return f"block {first}" if end == first + 1 else f"blocks {first} to {end - 1}"


class Claims:
    """Every block must be claimed by exactly one owner; `contested` gathers the runs that were claimed again."""

    def __init__(self, blocks: int) -> None:
        self.bits = bitarray(blocks, endian="little")
        self.contested: list[Run] = []

    def inside(self, first: int, length: int) -> bool:
        """Whether the blocks exist; block 0 never belongs to a structure that points to it."""
        return first > 0 and length > 0 and first + length <= len(self.bits)

    def reserve(self, first: int, length: int, owner: str) -> None:
        """Claim a fixed area."""
        self.bits[first : first + length] = 1

    def claim(self, first: int, length: int, owner: str) -> bool:
        """Claim blocks that exist for `owner`; False when some were claimed before."""
        bits, end = self.bits, first + length
        free = bits.find(1, first, end) < 0
        if not free and len(self.contested) < CONTESTED_MAX:
            self.contested += islice(runs_of_ones(bits, first, end), CONTESTED_MAX)
        bits[first:end] = 1
        return free


class OwnerTracker(Claims):
    """A second pass over the same image: records every owner of the blocks that the first pass found contested."""

    def __init__(self, blocks: int, contested: list[Run]) -> None:
        super().__init__(blocks)
        self.wanted = bitarray(blocks, endian="little")
        for first, end in contested:
            self.wanted[first:end] = 1
        self.owners: list[tuple[int, int, str]] = []
        """(first, end, owner) of every claim to contested blocks."""

    def reserve(self, first: int, length: int, owner: str) -> None:
        """As `Claims.reserve`."""
        self._note(first, first + length, owner)
        super().reserve(first, length, owner)

    def claim(self, first: int, length: int, owner: str) -> bool:
        """As `Claims.claim`."""
        self._note(first, first + length, owner)
        return super().claim(first, length, owner)

    def _note(self, first: int, end: int, owner: str) -> None:
        if len(self.owners) < 2 * CONTESTED_MAX:
            self.owners += ((start, stop, owner) for start, stop in runs_of_ones(self.wanted, first, end))

    def owners_of(self, first: int, end: int) -> list[str]:
        """The inodes that claim blocks of the run, each once, in the order of their claims."""
        return list(dict.fromkeys(owner for start, stop, owner in self.owners if start < end and first < stop))
