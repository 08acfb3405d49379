"""The states that a crash may leave when writes were not durable: the choices, and the resulting images.

The model of the disk:
- Everything written before the last completed flush is there, and so is every completed FUA write, which implies
  nothing about any other write.
- Of all other writes since, any subset of the 512-byte sectors is there. Overlapping writes may arrive in another order
  than they were made; that gives no further states, because keeping only the write that arrived last in a sector has
  the same result.
- After a failed flush, later ones prove nothing: what was not durable by then may never become durable. The kernel
  reports a failed writeback once, and then marks the pages clean.
- A sector in flight may be *trashed*: it holds neither the old nor the new content.
- A discard counts as a write of zeros.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from deferfs.device import (
    SECTOR_BYTES,
    Chooser,
    DiscardRecord,
    FailedFlushRecord,
    FlushRecord,
    Record,
    WriteRecord,
)

EXHAUSTIVE_WRITES_MAX: Final = 10
"""Up to this many unflushed writes, all subsets of whole writes are taken; likewise for the sectors of one write."""
_SHUFFLE: Final = bytes(byte ^ 0xA5 for byte in range(256))


@dataclass(frozen=True, slots=True)
class Subset:
    """A `Chooser`: keep the writes whose bits are set in `kept`; of write `torn`, keep the sectors in `sectors`, and
    trash those in `trashed`. With `shred`, a seed, every kept write is torn: about half of its sectors are there.
    """

    kept: int
    torn: int = -1
    sectors: int = 0
    trashed: int = 0
    shred: int = 0

    def __call__(self, index: int, sectors: int) -> int:
        if index == self.torn:
            return self.sectors
        if not self.kept >> index & 1:
            return 0
        return random.Random(f"{self.shred}:{index}").getrandbits(sectors) if self.shred else -1

    def writes(self, count: int) -> int:
        """Those of `count` unflushed writes of which something may be kept, as a bit mask; all others are lost."""
        kept = self.kept & (1 << count) - 1
        return kept if self.torn < 0 else kept | 1 << self.torn

    def trash(self, index: int, sectors: int) -> int:
        """The sectors of the `index`-th unflushed write that hold garbage, as a bit mask."""
        return self.sectors & self.trashed if index == self.torn else 0


@dataclass(frozen=True, slots=True)
class Shredded:
    """A `Chooser` that decides each sector independently, by a seed; about `eighths` of eight are kept."""

    seed: int
    eighths: int = 4

    def __call__(self, index: int, sectors: int) -> int:
        dice = random.Random(f"{self.seed}:{index}")
        return sum(1 << i for i in range(sectors) if dice.randrange(8) < self.eighths)


class CrashStates:
    """Crash states of a disk that held `start` before the first of `records`, one at a time.

    The sequence may grow meanwhile. Positions count records; ascending positions are cheap.
    """

    def __init__(self, start: bytes, records: Sequence[Record]) -> None:
        self.start = start
        self.records = records
        self._image = bytearray(start)
        self._flushed = 0
        self._sound = 0
        """Records examined that precede any failed flush."""

    def _before_failure(self, position: int) -> int:
        """Of the first `position` records, the number before the first failed flush."""
        while self._sound < position and not isinstance(self.records[self._sound], FailedFlushRecord):
            self._sound += 1
        return min(position, self._sound)

    def last_flush(self, position: int) -> int:
        """The number of records up to and including the last successful flush among the first `position`."""
        for at in range(self._before_failure(position), 0, -1):
            if isinstance(self.records[at - 1], FlushRecord):
                return at
        return 0

    def _flush(self, position: int) -> bytearray:
        """The content made durable by the last flush. Not to be changed."""
        flushed = self.last_flush(position)
        if flushed < self._flushed:
            self._image, self._flushed = bytearray(self.start), 0
        for record in self.records[self._flushed : flushed]:
            write = as_write(record)
            if write is not None:
                self._image[write.offset : write.offset + len(write.data)] = write.data
        self._flushed = flushed
        return self._image

    def _since_flush(self, position: int) -> list[WriteRecord]:
        writes = map(as_write, self.records[self.last_flush(position) : position])
        return [write for write in writes if write is not None]

    def unflushed(self, position: int) -> list[WriteRecord]:
        """The writes that may or may not be on the disk."""
        return [write for write in self._since_flush(position) if not write.fua]

    def image(self, position: int, choose: Chooser) -> bytes:
        """The disk after a crash in which `choose` decides which unflushed sectors are kept."""
        image = bytearray(self._flush(position))
        index = 0
        for write in self._since_flush(position):
            if write.fua:
                image[write.offset : write.offset + len(write.data)] = write.data
                continue
            _lay(image, write, index, choose)
            index += 1
        return bytes(image)


def _lay(image: bytearray, write: WriteRecord, index: int, choose: Chooser) -> None:
    pieces = sector_pieces(write)
    kept = choose(index, len(pieces))
    trashed = choose.trash(index, len(pieces)) if isinstance(choose, Subset) else 0
    for number, (position, data) in enumerate(pieces):
        if kept >> number & 1:
            image[position : position + len(data)] = data
            if trashed >> number & 1:
                start = position - position % SECTOR_BYTES
                image[start : start + SECTOR_BYTES] = garbage(bytes(image[start : start + SECTOR_BYTES]))


def as_write(record: Record) -> WriteRecord | None:
    """The record as a write; None when it does not change the disk."""
    if isinstance(record, DiscardRecord):
        return WriteRecord(record.offset, bytes(record.length))
    return record if isinstance(record, WriteRecord) else None


def sector_pieces(write: WriteRecord) -> list[tuple[int, bytes]]:
    """(byte offset, bytes) for each sector that the write touches."""
    end = write.offset + len(write.data)
    pieces: list[tuple[int, bytes]] = []
    position = write.offset
    while position < end:
        following = min(end, position - position % SECTOR_BYTES + SECTOR_BYTES)
        pieces.append((position, write.data[position - write.offset : following - write.offset]))
        position = following
    return pieces


def garbage(sector: bytes) -> bytes:
    """The content of a trashed sector: every byte differs from `sector`."""
    return sector.translate(_SHUFFLE)


def subsets(count: int, dice: random.Random, *, extra: int = 8) -> Iterator[Subset]:
    """Which of `count` unflushed writes reach the disk: all subsets when they are few; else all prefixes, all with one
    or some pairs missing, their complements, and `extra` random ones. Then `extra` with one write torn, the last of
    them with a trashed sector.
    """
    for kept in masks(count, dice, extra=extra):
        yield Subset(kept)
    if count:
        for number in range(extra):
            sectors = dice.getrandbits(64)
            trashed = sectors & dice.getrandbits(64) if number == extra - 1 else 0
            yield Subset(dice.getrandbits(count), dice.randrange(count), sectors, trashed)


def masks(count: int, dice: random.Random, *, extra: int) -> list[int]:
    """Subsets of `count` items as bit masks, smallest first: all, or the families named in `subsets`."""
    everything = (1 << count) - 1
    if count <= EXHAUSTIVE_WRITES_MAX:
        return list(range(everything + 1))
    chosen = {(1 << prefix) - 1 for prefix in range(count + 1)}
    chosen |= {everything ^ 1 << i for i in range(count)} | {1 << i for i in range(count)}
    pairs = list(itertools.combinations(range(count), 2))
    for i, j in dice.sample(pairs, min(len(pairs), extra)):
        chosen |= {everything ^ (1 << i | 1 << j), 1 << i | 1 << j}
    chosen |= {dice.getrandbits(count) for _ in range(extra)}
    return sorted(chosen)
