"""Recovery: validate the whole log, replay it, and only then reset it.

Nothing is written home before the entire log has been read and validated. Replay writes full images and is idempotent;
the tail is reset after a flush. So after a crash at any point of recovery the log is still there, and the next recovery
has the same result.

The log is streamed: it is read twice, once to validate it and once to write its images home, and never held in memory
as a whole. Memory used:

    8 MiB                  the piece being read, images about to be written home, 65,536 keys being sorted
    24 bytes an image      of the used part of the log, while the newest image of each block is determined
    8 bytes a revoke       of one transaction
    1 bit a block          of the log: whether it is the newest image of its home block
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from heapq import merge
from typing import Final

from bitarray import bitarray

from deferfs.errors import CorruptionError, ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS
from deferfs.ondisk.journal import (
    MAGIC_COMMIT,
    MAGIC_DESCRIPTOR,
    MAGIC_REVOKE,
    decode_commit,
    decode_revokes,
    decode_tags,
    peek,
)
from deferfs.ondisk.signatures import SIGNATURE_BYTES, foreign_content
from deferfs.ondisk.spare import HEAD_BYTES as SPARE_HEAD_BYTES
from deferfs.ondisk.spare import open_spare, places_on, spare_head
from deferfs.ondisk.superblock import STATE_CLEAN, Superblock, UnsupportedFormatError, newest
from deferfs.store.io import Flush, Job, Read, Write, runs_of

_SCAN_BYTES: Final = 1 << 20
"""Bytes of the log read at a time."""
_BATCH_BYTES: Final = 1 << 20
"""Bytes of images written home at a time, sorted by address."""
_SORT_KEYS: Final = 1 << 16
"""Keys sorted at a time: as Python objects they take 40 bytes each."""


@dataclass(slots=True)
class LogContent:
    """Summary of a valid log: which of its blocks are the newest images of their home blocks, and where it ends."""

    newest: bitarray = field(default_factory=bitarray)
    """By offset from the tail, for the used part of the log."""
    transactions: int = 0
    newest_tid_seen: int = 0
    """Including blocks of an interrupted commit: new transactions need a higher id."""


@dataclass(slots=True)
class Transaction:
    """A complete transaction in the log: home block and offset from the tail of each image, and the revoked addresses.
    `end` is the offset behind its commit block.
    """

    tid: int
    end: int = 0
    homes: array[int] = field(default_factory=lambda: array("Q"))
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    revokes: array[int] = field(default_factory=lambda: array("Q"))


def read_superblock(size_bytes: int) -> Job[Superblock]:
    """The newest valid superblock. ImageError when there is none, or the image is shorter than it says.

    An unreadable copy counts as damaged; OSError when there is no other. A spare superblock is not used: it says
    nothing about the log, so only fsck can restore from it.
    """
    copies: list[bytes] = []
    failure: OSError | None = None
    for offset in SUPERBLOCK_OFFSETS:
        if offset + SUPERBLOCK_BYTES <= size_bytes:
            try:
                data = yield Read(offset, SUPERBLOCK_BYTES)
            except OSError as error:
                failure = error
                data = bytes(SUPERBLOCK_BYTES)
            assert data is not None
            copies.append(data)
    try:
        superblock = newest(copies)
    except UnsupportedFormatError:
        raise
    except ImageError as none_counts:
        spare = yield from _find_spare(size_bytes)
        if spare is not None:
            text = f"both superblocks are lost, but a spare one is left at byte {spare}: deferfs fsck -y restores them"
            raise ImageError(text) from none_counts
        if failure is not None:
            raise failure from None
        raise
    needed = superblock.blocks * superblock.block_size
    if needed > size_bytes:
        hint = f"bring it to its length (truncate -s {needed}), then fsck can tell what is left"
        raise ImageError(f"image is truncated: {size_bytes} bytes of {needed}; {hint}")
    return superblock


def _find_spare(size_bytes: int) -> Job[int | None]:
    """The byte offset of an intact spare superblock at one of the usual places; None when there is none, or when the
    image starts with another kind of filesystem.
    """
    try:
        head = yield Read(0, min(SIGNATURE_BYTES, size_bytes))
    except OSError:
        head = b""
    if foreign_content(head or b"") is not None:
        return None
    for offset in places_on(size_bytes):
        try:
            data = yield Read(offset, SPARE_HEAD_BYTES)
            fmt = spare_head(data or b"").format
            data = yield Read(offset, fmt.block_size)
            open_spare(fmt, offset // fmt.block_size, data or b"")
        except (OSError, ImageError, CorruptionError):
            continue
        return offset
    return None


class LogReader:
    """Reads the log block by block from the tail on; one piece of it is buffered."""

    def __init__(self, superblock: Superblock) -> None:
        self.superblock = superblock
        self.fmt = superblock.format
        self.blocks = superblock.journal_blocks
        self._size = superblock.block_size
        self._first = 0
        self._piece = b""

    def block(self, offset: int) -> Job[bytes]:
        """The block at `offset` from the tail."""
        at = (offset - self._first) * self._size
        if not 0 <= at < len(self._piece):
            position = (self.superblock.journal_tail + offset) % self.blocks
            count = min(max(1, _SCAN_BYTES // self._size), self.blocks - position)
            self._piece = b""
            data = yield Read((self.superblock.journal_start + position) * self._size, count * self._size)
            assert data is not None
            self._first, self._piece, at = offset, data, 0
        return self._piece[at : at + self._size]

    def held_from(self, offset: int) -> Job[list[bytes]]:
        """The block at `offset` from the tail and the buffered blocks behind it: saves a generator per block."""
        yield from self.block(offset)
        at, size = (offset - self._first) * self._size, self._size
        end = min(len(self._piece), at + (self.blocks - offset) * size)
        return [self._piece[start : start + size] for start in range(at, end, size)]

    def transaction(self, tid: int, start: int) -> Job[Transaction | None]:
        """Transaction `tid`, which begins at offset `start`; None when it is not complete. CorruptionError."""
        fmt = self.fmt
        found = Transaction(tid)
        at, body_crc = start, 0
        while at < self.blocks:
            block = yield from self.block(at)
            header = peek(fmt, block)
            if header is None or header[1] != tid or header[2] != at - start:
                return None
            magic, _, _, count = header
            if magic == MAGIC_COMMIT:
                commit = decode_commit(block)
                if commit.blocks != at - start or commit.body_crc != body_crc:
                    return None
                found.end = at + 1
                return found
            body_crc = fmt.checksum(body_crc, block)
            at += 1
            if magic == MAGIC_REVOKE:
                found.revokes.extend(decode_revokes(fmt, block, count))
            elif magic == MAGIC_DESCRIPTOR:
                for tag in decode_tags(fmt, block, count):
                    if at >= self.blocks:
                        return None
                    image = yield from self.block(at)
                    if fmt.checksum(tid, image) != tag.crc:
                        return None
                    found.homes.append(tag.home)
                    found.offsets.append(at)
                    at += 1
        return None


class _NewestImages:
    """Finds the newest image of each block. A key is home block, offset in the log, and whether it is a revoke; a
    revoke has the offset of its transaction's commit block, and so overrides all images up to there."""

    def __init__(self, superblock: Superblock) -> None:
        self._superblock = superblock
        self._shift = superblock.journal_blocks.bit_length() + 1
        if self._shift + superblock.blocks.bit_length() > 64:
            raise ImageError("journal: larger than any that deferfs makes")
        self._keys = array("Q")
        self._compact_at = 2 * _SORT_KEYS
        self._outside = 0
        """The last home address found that is past the end of the filesystem."""

    def add(self, transaction: Transaction) -> None:
        for home, offset in zip(transaction.homes, transaction.offsets, strict=True):
            self._keys.append(self._place(home) << self._shift | offset << 1)
        for home in transaction.revokes:
            self._keys.append(self._place(home) << self._shift | (transaction.end - 1) << 1 | 1)
        if len(self._keys) > self._compact_at:
            self._compact()
            self._compact_at = 2 * len(self._keys) + 2 * _SORT_KEYS

    def _place(self, home: int) -> int:
        if home >= self._superblock.blocks:
            self._outside = home
            return self._superblock.blocks
        return home

    def _compact(self) -> None:
        """Keep the newest image of each block. A revoke affects only earlier images and can be dropped."""
        keys, self._keys = self._keys, array("Q")
        parts = [array("Q", sorted(keys[at : at + _SORT_KEYS])) for at in range(0, len(keys), _SORT_KEYS)]
        del keys
        before = 1
        for key in merge(*parts):
            if before >> self._shift != key >> self._shift and not before & 1:
                self._keys.append(before)
            before = key
        if not before & 1:
            self._keys.append(before)

    def marks(self, used: int) -> bitarray:
        """A bit for each offset below `used`. ImageError for an image whose home cannot be a journaled block."""
        self._compact()
        superblock = self._superblock
        reserved = superblock.format.reserved_blocks
        journal = range(superblock.journal_start, superblock.journal_start + superblock.journal_blocks)
        marks = bitarray(used)
        marks.setall(0)
        for key in self._keys:
            home = key >> self._shift
            if not reserved <= home < superblock.blocks or home in journal:
                home = self._outside if home == superblock.blocks else home
                raise ImageError(f"journal: an image belongs to block {home}, which cannot hold a journaled block")
            marks[(key & ((1 << self._shift) - 1)) >> 1] = 1
        return marks


def read_log(superblock: Superblock) -> Job[LogContent]:
    """Read and validate the whole log. ImageError when a transaction is damaged although later ones are valid, or when
    the home of an image cannot be a journaled block."""
    try:
        return (yield from _read_log(superblock))
    except CorruptionError as error:
        raise ImageError(f"journal: {error.detail}") from error


def _read_log(superblock: Superblock) -> Job[LogContent]:
    reader, images = LogReader(superblock), _NewestImages(superblock)
    tid, used = superblock.tail_tid, 0
    while used < reader.blocks:
        transaction = yield from reader.transaction(tid, used)
        if transaction is None:
            break
        images.add(transaction)
        tid, used = tid + 1, transaction.end
    newest_tid = tid - 1
    at = used
    while at < reader.blocks:
        held = yield from reader.held_from(at)
        at += len(held)
        for block in held:
            header = peek(reader.fmt, block)
            if header is not None:
                if header[1] > tid:
                    raise ImageError(f"journal: transaction {tid} is damaged, but {header[1]} after it is valid")
                newest_tid = max(newest_tid, header[1])
    return LogContent(images.marks(used), tid - superblock.tail_tid, newest_tid)


def recover(superblock: Superblock, now_ns: int) -> Job[tuple[Superblock, LogContent]]:
    """Replay the log of an image that was not closed cleanly; returns the new superblock, with an empty log."""
    content = yield from read_log(superblock)
    yield from _write_home(superblock, content)
    yield Flush()
    renewed = superblock.next(
        journal_tail=0,
        tail_tid=content.newest_tid_seen + 1,
        written_ns=now_ns,
        state=superblock.state & ~STATE_CLEAN,
    )
    yield Write(superblock_offset(renewed), [renewed.encode()])
    yield Flush()
    return renewed, content


def _write_home(superblock: Superblock, content: LogContent) -> Job[None]:
    """Read the validated log once more, and write the newest images home."""
    reader = LogReader(superblock)
    fmt = reader.fmt
    batch: dict[int, bytes] = {}
    per = max(1, _BATCH_BYTES // fmt.block_size)
    at = 0
    while at < len(content.newest):
        block = yield from reader.block(at)
        header = peek(fmt, block)
        if header is None:
            raise _changed(at)
        magic, tid, _, count = header
        at += 1
        for tag in decode_tags(fmt, block, count) if magic == MAGIC_DESCRIPTOR else ():
            if content.newest[at]:
                image = yield from reader.block(at)
                if fmt.checksum(tid, image) != tag.crc:
                    raise _changed(at)
                batch[tag.home] = image
                if len(batch) >= per:
                    yield from _write_batch(fmt.block_size, batch)
                    batch = {}
            at += 1
    yield from _write_batch(fmt.block_size, batch)


def _write_batch(size: int, batch: dict[int, bytes]) -> Job[None]:
    for first, length in runs_of(sorted(batch)):
        yield Write(first * size, [batch[address] for address in range(first, first + length)])


def _changed(offset: int) -> ImageError:
    return ImageError(f"journal: block {offset} from the tail changed between two reads")


def superblock_offset(superblock: Superblock) -> int:
    """Byte offset of this superblock: the two copies are written in turn."""
    return SUPERBLOCK_OFFSETS[superblock.sequence % 2]
