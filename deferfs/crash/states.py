"""The images that a crash may leave behind, made from a recorded log.

The model of the disk: everything written before the last flush is there. Of what was written after it, any subset of
the 512-byte sectors is there.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from deferfs.device import SECTOR_BYTES, Chooser, DiscardRecord, FlushRecord, Record, WriteRecord, apply_torn

EXHAUSTIVE_WRITES_MAX: Final = 6
"""Up to so many unflushed writes, all subsets of whole writes are taken."""


class CrashStates:
    """Crash states of a disk that held `start` before the first of `records`.

    The sequence may grow while this is in use. Positions count records; asking in rising order is cheap.
    """

    def __init__(self, start: bytes, records: Sequence[Record]) -> None:
        self.start = start
        self.records = records
        self._image = bytearray(start)
        self._flushed = 0

    def last_flush(self, position: int) -> int:
        """The number of records up to and including the last flush among the first `position`."""
        for at in range(position, 0, -1):
            if isinstance(self.records[at - 1], FlushRecord):
                return at
        return 0

    def durable(self, position: int) -> bytearray:
        """What is on the disk for certain after `position` records. Not to be changed by the caller."""
        flushed = self.last_flush(position)
        if flushed < self._flushed:
            self._image, self._flushed = bytearray(self.start), 0
        for record in self.records[self._flushed : flushed]:
            write = _as_write(record)
            if write is not None:
                self._image[write.offset : write.offset + len(write.data)] = write.data
        self._flushed = flushed
        return self._image

    def unflushed(self, position: int) -> list[WriteRecord]:
        """What may or may not be on the disk. A discard counts as a write of zeros."""
        writes = map(_as_write, self.records[self.last_flush(position) : position])
        return [write for write in writes if write is not None]

    def image(self, position: int, choose: Chooser) -> bytes:
        """The disk after a crash in which `choose` decides what of the unflushed writes is kept."""
        image = bytearray(self.durable(position))
        apply_torn(image, self.unflushed(position), choose)
        return bytes(image)

    def key(self, position: int, choose: Chooser) -> bytes:
        """Equal for images that are equal: a digest of the sectors that differ from the durable ones."""
        durable = self.durable(position)
        image = bytearray(durable)
        unflushed = self.unflushed(position)
        apply_torn(image, unflushed, choose)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self._flushed.to_bytes(8, "little"))
        for sector in sorted({sector for write in unflushed for sector in _sectors(write)}):
            start = sector * SECTOR_BYTES
            piece = image[start : start + SECTOR_BYTES]
            if piece != durable[start : start + SECTOR_BYTES]:
                digest.update(sector.to_bytes(8, "little"))
                digest.update(piece)
        return digest.digest()


def _as_write(record: Record) -> WriteRecord | None:
    if isinstance(record, DiscardRecord):
        return WriteRecord(record.offset, bytes(record.length))
    return record if isinstance(record, WriteRecord) else None


def _sectors(write: WriteRecord) -> range:
    return range(write.offset // SECTOR_BYTES, -(-(write.offset + len(write.data)) // SECTOR_BYTES))


@dataclass(frozen=True, slots=True)
class Subset:
    """A `Chooser`: keep the writes whose bits are set in `kept`; of the `torn` one, the sectors in `sectors`."""

    kept: int
    torn: int = -1
    sectors: int = 0

    def __call__(self, index: int, sectors: int) -> int:
        if index == self.torn:
            return self.sectors
        return -1 if self.kept >> index & 1 else 0


@dataclass(frozen=True, slots=True)
class Shredded:
    """A `Chooser`: every sector decides for itself, by a seed; about `eighths` of eight are kept."""

    seed: int
    eighths: int = 4

    def __call__(self, index: int, sectors: int) -> int:
        dice = random.Random(f"{self.seed}:{index}")
        return sum(1 << i for i in range(sectors) if dice.randrange(8) < self.eighths)


def subsets(count: int, dice: random.Random, *, extra: int = 8) -> Iterator[Subset]:
    """Which of `count` unflushed writes reach the disk: all subsets when they are few; else all prefixes, all with
    one or the first pairs missing, their complements, and `extra` random ones. Then `extra` with one write
    torn.
    """
    everything = (1 << count) - 1
    if count <= EXHAUSTIVE_WRITES_MAX:
        for kept in range(everything + 1):
            yield Subset(kept)
    else:
        chosen = {(1 << prefix) - 1 for prefix in range(count + 1)}
        chosen |= {everything ^ 1 << i for i in range(count)} | {1 << i for i in range(count)}
        pairs = list(itertools.combinations(range(count), 2))
        for i, j in dice.sample(pairs, min(len(pairs), extra)):
            chosen |= {everything ^ (1 << i | 1 << j), 1 << i | 1 << j}
        chosen |= {dice.getrandbits(count) for _ in range(extra)}
        for kept in sorted(chosen):
            yield Subset(kept)
    if count:
        for _ in range(extra):
            yield Subset(dice.getrandbits(count), dice.randrange(count), dice.getrandbits(64))
