"""The log of a disk divided into epochs, and the crash states of each.

An *epoch* is the part between two flushes. A crash in it leaves what was durable before it, and those of its writes
that a `Subset` keeps. The same image can be left by crashes at several positions of the log: from just after the last
write that it keeps to just before the flush that ends the epoch. So each image is made once, with the range of
positions at which it can be left, and must be allowed for all of them.

FUA writes are durable once complete, so a choice that keeps a later write must keep them, too.

After a failed flush no later flush ends the epoch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from deferfs.crash.pages import Pages, Part, Patch, cut, lay, put
from deferfs.crash.states import EXHAUSTIVE_WRITES_MAX, Subset, as_write, garbage, masks, sector_pieces
from deferfs.device import SECTOR_BYTES, FailedFlushRecord, FlushRecord, Record, WriteRecord


@dataclass(frozen=True, slots=True)
class CrashState:
    """An image that a crash may leave: `patch` on the durable pages.

    It can be left by a crash after `earliest` to `latest` records. `trashed` are the sectors that hold garbage.
    """

    epoch: int
    """Number of the epoch in its log."""
    choice: Subset
    patch: Patch
    earliest: int
    latest: int
    trashed: frozenset[int] = frozenset()


@dataclass(slots=True)
class Epoch:
    """Records `first` to before `end`, without a successful flush. `positions[i]` is the position just after
    `writes[i]`.
    """

    number: int
    first: int
    end: int
    page_bytes: int
    writes: list[WriteRecord] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    parts: list[list[Part]] = field(default_factory=list)
    """The parts of each write, cut at page boundaries, and its number of sectors: computed once, used for thousands of
    states."""
    lengths: list[int] = field(default_factory=list)
    replaced: list[Patch | None] = field(default_factory=list)
    """The pages that each write replaces; None where it covers one only in part."""
    replaced_with_next: list[Patch | None] = field(default_factory=list)
    """The pages that it and the next one replace together, where none of the two does it alone."""
    fua: list[int] = field(default_factory=list)
    """Indices of the FUA writes."""

    def add(self, write: WriteRecord, position: int) -> None:
        """Add a write; the log has `position` records after it."""
        self.writes.append(write)
        self.positions.append(position)
        if write.fua:
            self.fua.append(len(self.parts))
        parts = cut(write.offset, write.data, self.page_bytes)
        self.parts.append(parts)
        self.replaced.append(self._whole_pages(parts))
        self.replaced_with_next.append(None)
        if len(self.writes) > 1 and self.replaced[-1] is self.replaced[-2] is None:
            before = self.writes[-2]
            if before.offset + len(before.data) == write.offset:
                both = cut(before.offset, before.data + write.data, self.page_bytes)
                self.replaced_with_next[-2] = self._whole_pages(both)
        self.lengths.append(-(-(write.offset + len(write.data)) // SECTOR_BYTES) - write.offset // SECTOR_BYTES)

    def _whole_pages(self, parts: list[Part]) -> Patch | None:
        if any(len(part) != self.page_bytes for _, _, part in parts):
            return None
        return {page: part for page, _, part in parts}

    def pages(self) -> set[int]:
        """The pages it writes to."""
        return {page for parts in self.parts for page, _, _ in parts}

    def state(self, base: Pages, choice: Subset) -> CrashState | None:
        """The state that `choice` leaves; None when it contradicts the FUA writes."""
        patch: Patch = {}
        trashed: set[int] = set()
        last, torn, shred = -1, choice.torn, choice.shred
        left = choice.writes(len(self.writes))
        while left:
            bit = left & -left
            left ^= bit
            index = bit.bit_length() - 1
            if shred or index == torn:
                length = self.lengths[index]
                kept = choice(index, length) & (1 << length) - 1
                if not kept:
                    continue
                self._put_torn(patch, base, self.writes[index], kept, choice.trash(index, length) & kept, trashed)
            elif (pages := self.replaced[index]) is not None:
                patch.update(pages)
            elif (pages := self.replaced_with_next[index]) is not None and left & bit << 1 and index + 1 != torn:
                patch.update(pages)
                left ^= bit << 1
                index += 1
            else:
                lay(patch, base.__getitem__, self.page_bytes, self.parts[index])
            last = index
        latest = self.end
        for index in self.fua:
            if ~choice(index, self.lengths[index]) & (1 << self.lengths[index]) - 1:
                if last > index:
                    return None
                latest = self.positions[index] - 1
                break
        earliest = self.first if last < 0 else min(self.positions[last], latest)
        changed = {page: content for page, content in patch.items() if content != base[page]}
        return CrashState(self.number, choice, changed, earliest, latest, frozenset(trashed))

    def _put_torn(
        self, patch: Patch, base: Pages, write: WriteRecord, kept: int, trash: int, trashed: set[int]
    ) -> None:
        size = self.page_bytes
        for number, (position, data) in enumerate(sector_pieces(write)):
            if not kept >> number & 1:
                continue
            put(patch, base.__getitem__, size, position, data)
            if trash >> number & 1:
                sector = position // SECTOR_BYTES
                trashed.add(sector)
                page, inside = divmod(sector * SECTOR_BYTES, size)
                put(patch, base.__getitem__, size, sector * SECTOR_BYTES, garbage(patch[page][inside:][:SECTOR_BYTES]))


def epochs(records: Sequence[Record], page_bytes: int) -> Iterator[Epoch]:
    """All epochs of a log, in order. The last one may lack its flush."""
    current = Epoch(0, 0, 0, page_bytes)
    failed = False
    for position, record in enumerate(records):
        failed = failed or isinstance(record, FailedFlushRecord)
        if isinstance(record, FlushRecord) and not failed:
            current.end = position
            yield current
            current = Epoch(current.number + 1, position + 1, 0, page_bytes)
            continue
        write = as_write(record)
        if write is not None and write.data:
            current.add(write, position + 1)
    current.end = len(records)
    yield current


_TORN: Final = 24
"""Choices that tear one write, per write of a small epoch; in others they are drawn at random."""
_SHREDDED: Final = 4
"""Choices that tear all the writes they keep, per epoch."""


def choices(epoch: Epoch, dice: random.Random, *, torn: int = _TORN) -> Iterator[Subset]:
    """The choices to try: subsets of whole writes as in `states.subsets`, then torn writes and trashed sectors.

    A single write of few sectors is torn in every way. Of a longer one all prefixes are taken, all with one sector
    missing, their complements, and random ones; with several writes, those before the torn one are kept, or drawn. At
    most about `torn` per write, and 16 times that per epoch. A few choices tear several writes at once.
    """
    count = len(epoch.writes)
    for kept in masks(count, dice, extra=torn):
        yield Subset(kept)
    lengths = epoch.lengths
    wide = [index for index, length in enumerate(lengths) if length > 1]
    alone = count == 1
    for index in wide if len(wide) <= 16 else sorted(dice.sample(wide, 16)):
        found = masks(lengths[index], dice, extra=torn)[1:-1]
        if not (alone and lengths[index] <= EXHAUSTIVE_WRITES_MAX):
            limit = 4 * torn if alone else torn
            found = found if len(found) <= limit else sorted(dice.sample(found, limit))
        before = (1 << index) - 1
        for number, sectors in enumerate(found):
            yield Subset(before if number % 2 else dice.getrandbits(count), index, sectors)
    for number in range(min(_SHREDDED, torn) if len(wide) > 1 else 0):
        yield Subset(dice.getrandbits(count) if number % 2 else (1 << count) - 1, shred=1 + dice.getrandbits(31))
    for index in range(count) if count <= 8 else sorted(dice.sample(range(count), 8)):
        everything = (1 << lengths[index]) - 1
        sector = 1 << dice.randrange(lengths[index])
        yield Subset((1 << index) - 1, index, everything, sector)
        yield Subset(dice.getrandbits(count), index, sector, sector)


def sampled_choices(epoch: Epoch, dice: random.Random, *, torn: int, at_most: int) -> Iterator[Subset]:
    """As `choices`, for callers that stop early: keeping nothing and everything comes first, and then any prefix is a
    fair sample. At most `at_most`.
    """
    found = list(choices(epoch, dice, torn=torn))
    yield from (Subset(0), Subset((1 << len(epoch.writes)) - 1))
    yield from dice.sample(found, min(len(found), at_most))
