"""The commit job: freeze the running transaction, write it to the log, and make it durable."""

from __future__ import annotations

import errno

from deferfs.errors import FsError
from deferfs.ondisk.format import Format
from deferfs.ondisk.journal import (
    Commit,
    Tag,
    encode_commit,
    encode_descriptor,
    encode_revoke,
)
from deferfs.store.io import Discard, Flush, Job, Write
from deferfs.store.journal import Journal
from deferfs.store.transaction import Transaction


def commit(journal: Journal, now_ns: int, *, discard: bool = False) -> Job[int]:
    """Make everything applied so far durable; returns the id of the newest durable transaction.

    Two barriers when file data was written for the transaction (data and log, flush, commit record, flush); else one:
    the checksums in the commit record show whether the whole transaction is there. FsError(EIO) when the journal is or
    becomes aborted: a failed flush is never retried.
    """
    journal.require_working()
    assert journal.committing is None, "one commit at a time"
    if journal.running.empty:
        try:
            yield Flush()
        except OSError as error:
            journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error
        journal.require_working()
        return journal.committed_tid
    transaction = journal.freeze()
    try:
        yield from journal.unless_aborted(_write(journal, transaction, now_ns))
    except OSError as error:
        journal.abort(error)
        raise FsError(errno.EIO, f"commit failed: {error}") from error
    freed = journal.complete(transaction)
    if discard:
        size = journal.store.fmt.block_size
        try:
            for first, length in freed:
                yield Discard(first * size, length * size)
        except OSError:
            pass  # best effort: the blocks are free in any case
    journal.store.space.release(freed)
    return transaction.tid


def _log_runs(journal: Journal, position: int, blocks: list[bytes]) -> list[Write]:
    """The writes of `blocks` to log offset `position`, which may wrap."""
    if not blocks:
        return []
    size = journal.store.fmt.block_size
    position %= journal.blocks
    first = journal.blocks - position
    writes = [Write((journal.start + position) * size, blocks[:first])]
    if len(blocks) > first:
        writes.append(Write(journal.start * size, blocks[first:]))
    return writes


def _write(journal: Journal, transaction: Transaction, now_ns: int) -> Job[None]:
    fmt = journal.store.fmt
    position, body_crc = transaction.start, 0
    batch = _encode_revokes(fmt, transaction)
    for block in batch:
        body_crc = fmt.checksum(body_crc, block)
    index = len(batch)
    per = fmt.tags_per_descriptor
    addresses = sorted(transaction.images)
    for at in range(0, len(addresses), per):
        for write in _log_runs(journal, position, batch):
            yield write
        position += len(batch)
        batch = _encode_images(fmt, transaction, index, addresses[at : at + per])
        body_crc = fmt.checksum(body_crc, batch[0])
        index += len(batch)
    tail_tid = journal.store.superblock.tail_tid
    record = encode_commit(fmt, transaction.tid, index, Commit(index, body_crc, now_ns, tail_tid))
    if transaction.ordered_data:
        for write in _log_runs(journal, position, batch):
            yield write
        position += len(batch)
        batch = []
        yield Flush()
    for write in _log_runs(journal, position, [*batch, record]):
        yield write
    yield Flush()
    assert index + 1 == transaction.log_blocks, "reserved and written log blocks differ"


def _encode_images(fmt: Format, transaction: Transaction, index: int, addresses: list[int]) -> list[bytes]:
    """A descriptor block followed by its images."""
    images = [transaction.images[address].encode(fmt, address) for address in addresses]
    tags = [
        Tag(address, fmt.checksum(transaction.tid, image)) for address, image in zip(addresses, images, strict=True)
    ]
    return [encode_descriptor(fmt, transaction.tid, index, tags), *images]


def _encode_revokes(fmt: Format, transaction: Transaction) -> list[bytes]:
    per = fmt.revokes_per_block
    addresses = sorted(transaction.revokes)
    return [
        encode_revoke(fmt, transaction.tid, i, addresses[at : at + per])
        for i, at in enumerate(range(0, len(addresses), per))
    ]
