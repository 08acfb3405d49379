"""Who holds which block: a map built from scratch, one bit per block of the image."""

from __future__ import annotations

from collections.abc import Iterator

from bitarray import bitarray

from deferfs.check import catalogue
from deferfs.check.report import Findings

Run = tuple[int, int]
"""(first, end): a half-open range of blocks."""


def runs_of_ones(bits: bitarray, start: int = 0, end: int | None = None) -> Iterator[Run]:
    """The runs of set bits in `bits[start:end]`, which must not change meanwhile."""
    stop = len(bits) if end is None else end
    at = bits.find(1, start, stop)
    while at >= 0:
        after = bits.find(0, at, stop)
        after = stop if after < 0 else after
        yield at, after
        at = bits.find(1, after, stop)


class Claims:
    """Every block must be claimed by exactly one owner."""

    def __init__(self, blocks: int, findings: Findings) -> None:
        self.bits = bitarray(blocks, endian="little")
        self.findings = findings

    def inside(self, first: int, length: int) -> bool:
        """Whether the blocks exist; block 0 never belongs to a structure that points to it."""
        return first > 0 and length > 0 and first + length <= len(self.bits)

    def claim(self, first: int, length: int, owner: str, **where: int) -> bool:
        """Claim blocks that exist; False, and a problem, when some were claimed before."""
        bits, end = self.bits, first + length
        if bits.find(1, first, end) < 0:
            bits[first:end] = 1
            return True
        for start, stop in runs_of_ones(bits, first, end):
            text = f"{owner}: {blocks_text(start, stop)} claimed before by another owner"
            self.findings.add(catalogue.BLOCK_SHARED, text, block=start, length=stop - start, **where)
        bits[first:end] = 1
        return False


def blocks_text(first: int, end: int) -> str:
    """The run in words: one block by its number, several as a range."""
    return f"block {first}" if end == first + 1 else f"blocks {first} to {end - 1}"
