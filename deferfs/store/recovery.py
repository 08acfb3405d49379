"""Recovery: validate the whole log, replay it, and only then reset it.

Nothing is written home before the entire log has been read and judged. Replay writes full images and is idempotent; the
tail is reset after a flush. So a crash at any point of recovery leaves a log that recovery reads again with the same
result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deferfs.errors import CorruptionError, ImageError
from deferfs.ondisk.format import SUPERBLOCK_BYTES, SUPERBLOCK_OFFSETS, Format
from deferfs.ondisk.journal import (
    MAGIC_COMMIT,
    MAGIC_DESCRIPTOR,
    MAGIC_REVOKE,
    decode_commit,
    decode_revokes,
    decode_tags,
    peek,
)
from deferfs.ondisk.superblock import STATE_CLEAN, Superblock, newest
from deferfs.store.io import Flush, Job, Read, Write, runs_of

_SCAN_BYTES = 1 << 20
_WRITE_BLOCKS = 64


@dataclass(slots=True)
class LogContent:
    """What a valid log holds: the newest image of each block, and where the log ends."""

    images: dict[int, bytes] = field(default_factory=dict)
    transactions: int = 0
    last_tid: int = 0
    newest_tid_seen: int = 0
    """Including the remains of an interrupted commit: new transactions must be numbered above it."""


@dataclass(slots=True)
class Transaction:
    """A whole transaction as it is in the log: `blocks` of it, (home, image), and revoked addresses."""

    tid: int
    blocks: int
    images: list[tuple[int, bytes]] = field(default_factory=list)
    revokes: list[int] = field(default_factory=list)


def read_superblock(size_bytes: int) -> Job[Superblock]:
    """The superblock that counts; ImageError when there is none or the image is shorter than it says.

    A copy that cannot be read is as good as a damaged one. OSError when no other one can be used.
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
    except ImageError:
        if failure is not None:
            raise failure from None
        raise
    needed = superblock.blocks * superblock.block_size
    if needed > size_bytes:
        hint = f"bring it to its length (truncate -s {needed}), then fsck can tell what is left"
        raise ImageError(f"image is truncated: {size_bytes} bytes of {needed}; {hint}")
    return superblock


def read_log(superblock: Superblock) -> Job[LogContent]:
    """Read and judge the whole log. ImageError when a transaction is damaged although later ones are valid."""
    log = yield from read_log_blocks(superblock)
    return parse_log(superblock.format, superblock, log)


def read_log_blocks(superblock: Superblock) -> Job[list[bytes]]:
    """The blocks of the journal region, in order."""
    size = superblock.block_size
    log: list[bytes] = []
    per = max(1, _SCAN_BYTES // size)
    for at in range(0, superblock.journal_blocks, per):
        count = min(per, superblock.journal_blocks - at)
        data = yield Read((superblock.journal_start + at) * size, count * size)
        assert data is not None
        log.extend(data[i : i + size] for i in range(0, len(data), size))
    return log


def parse_log(fmt: Format, superblock: Superblock, log: list[bytes]) -> LogContent:
    """The content of the journal region `log` (its blocks in order). ImageError when it is damaged."""
    try:
        return _parse_log(fmt, superblock, log)
    except CorruptionError as error:
        raise ImageError(f"journal: {error.detail}") from error


def _parse_log(fmt: Format, superblock: Superblock, log: list[bytes]) -> LogContent:
    content = LogContent()
    transactions = whole_transactions(fmt, superblock, log)
    tid = superblock.tail_tid + len(transactions)
    revoked: dict[int, int] = {}
    for transaction in transactions:
        for address in transaction.revokes:
            revoked[address] = transaction.tid
    for transaction in transactions:
        for home, image in transaction.images:
            if transaction.tid > revoked.get(home, 0):
                content.images[home] = image
            else:
                content.images.pop(home, None)
    content.transactions = len(transactions)
    content.last_tid = content.newest_tid_seen = tid - 1
    for block in log:
        header = peek(fmt, block)
        if header is None:
            continue
        if header[1] > tid:
            raise ImageError(f"journal: transaction {tid} is damaged, but {header[1]} after it is valid")
        content.newest_tid_seen = max(content.newest_tid_seen, header[1])
    return content


def whole_transactions(fmt: Format, superblock: Superblock, log: list[bytes]) -> list[Transaction]:
    """The transactions from the tail on, up to the first that is not completely there. CorruptionError."""
    position, used = superblock.journal_tail, 0
    transactions: list[Transaction] = []
    while used < len(log):
        found = _parse_transaction(fmt, log, position, superblock.tail_tid + len(transactions), len(log) - used)
        if found is None:
            break
        transactions.append(found)
        position = (position + found.blocks) % len(log)
        used += found.blocks
    return transactions


def _parse_transaction(fmt: Format, log: list[bytes], position: int, tid: int, limit: int) -> Transaction | None:
    """Transaction `tid` at log offset `position`, or None when it is not completely there."""
    found = Transaction(tid, 0)
    index, body_crc = 0, 0
    while index < limit:
        block = log[(position + index) % len(log)]
        header = peek(fmt, block)
        if header is None or header[1] != tid or header[2] != index:
            return None
        magic, _, _, count = header
        if magic == MAGIC_COMMIT:
            commit = decode_commit(block)
            if commit.blocks != index or commit.body_crc != body_crc:
                return None
            found.blocks = index + 1
            return found
        body_crc = fmt.checksum(body_crc, block)
        index += 1
        if magic == MAGIC_REVOKE:
            found.revokes.extend(decode_revokes(fmt, block, count))
        elif magic == MAGIC_DESCRIPTOR:
            for tag in decode_tags(fmt, block, count):
                if index >= limit:
                    return None
                image = log[(position + index) % len(log)]
                if fmt.checksum(tid, image) != tag.crc:
                    return None
                found.images.append((tag.home, image))
                index += 1
    return None


def recover(superblock: Superblock, now_ns: int) -> Job[tuple[Superblock, LogContent]]:
    """Replay the log of an image that was not closed cleanly; the new superblock, with an empty log."""
    content = yield from read_log(superblock)
    size = superblock.block_size
    _check_homes(superblock, content)
    for first, length in runs_of(sorted(content.images)):
        for at in range(first, first + length, _WRITE_BLOCKS):
            part = range(at, min(at + _WRITE_BLOCKS, first + length))
            yield Write(at * size, [content.images[address] for address in part])
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


def _check_homes(superblock: Superblock, content: LogContent) -> None:
    """ImageError, before anything is written, when an image would go where no journaled block can live."""
    reserved = superblock.format.reserved_blocks
    journal = range(superblock.journal_start, superblock.journal_start + superblock.journal_blocks)
    for home in content.images:
        if not reserved <= home < superblock.blocks or home in journal:
            raise ImageError(f"journal: an image belongs to block {home}, where no journaled block can live")


def superblock_offset(superblock: Superblock) -> int:
    """Where this superblock is written: the copies take turns."""
    return SUPERBLOCK_OFFSETS[superblock.sequence % 2]
