"""Pass 2: the log, replayed into memory only.

Transactions are taken from the tail on as long as they are whole. What follows the last whole one
is an interrupted commit, which is fine, unless a record of a still newer transaction is found: one
begins only when the one before it is durable, so then a transaction in the middle is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from deferfs.check import catalogue
from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.report import Findings
from deferfs.errors import CorruptionError
from deferfs.ondisk.journal import (
    MAGIC_COMMIT,
    MAGIC_DESCRIPTOR,
    MAGIC_REVOKE,
    decode_commit,
    decode_revokes,
    decode_tags,
    peek,
)
from deferfs.ondisk.superblock import Superblock

_RUN_BYTES: Final = 256 << 10
"""Read at once where the log is read from one end to the other."""


@dataclass(slots=True)
class Transaction:
    """A whole transaction: (home, log block) of its images, its revokes, and the log blocks it
    takes from offset `position` of the journal on.
    """

    tid: int
    position: int = 0
    images: list[tuple[int, int]] = field(default_factory=list)
    revokes: list[int] = field(default_factory=list)
    blocks: int = 0
    time_ns: int = 0
    tail_tid: int = 0
    """The oldest transaction that was not all at home when this one was committed; 0 when its commit block has none."""


@dataclass(slots=True, frozen=True)
class LogContent:
    """What was found in the log: whole transactions and the blocks they take, the newest id of any block in it, whether
    one in the middle is damaged.
    """

    transactions: int
    blocks: int
    newest_tid: int
    damaged: bool


class LogReader:
    """The journal region as a ring of blocks."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.start = context.superblock.journal_start
        self.length = context.superblock.journal_blocks

    def address(self, position: int) -> int:
        return self.start + position % self.length

    def block(self, position: int) -> bytes:
        """The block; zeros, which hold no record, when it cannot be read."""
        found = self.context.reader.read_raw(self.address(position))
        return bytes(self.context.fmt.block_size) if found is None else found

    def blocks(self, position: int, count: int) -> Iterator[bytes]:
        """`count` blocks, at most the length of the log, from `position` on, as `block`, read in runs."""
        size = self.context.fmt.block_size
        while count > 0:
            address = self.address(position)
            run = min(count, _RUN_BYTES // size, self.start + self.length - address)
            for found in self.context.reader.read_run(address, run):
                yield bytes(size) if found is None else found
            position, count = position + run, count - run


def replay(context: Context) -> LogContent:
    """Fill the overlay of the reader from the log. Returns what the log holds."""
    superblock = context.superblock
    log = LogReader(context)
    newest: dict[int, tuple[int, int]] = {}
    revoked: dict[int, int] = {}
    found = whole_transactions(context)
    for transaction in found:
        for home, source in transaction.images:
            newest[home] = (transaction.tid, source)
        for home in transaction.revokes:
            revoked[home] = transaction.tid
        _check_homes(context, transaction)
    used = sum(transaction.blocks for transaction in found)
    position, tid = superblock.journal_tail + used, superblock.tail_tid + len(found)
    newest_tid = _look_for_newer(log, position, log.length - used, tid)
    transactions = tid - superblock.tail_tid
    if transactions and superblock.clean:
        text = f"log: {transactions} transactions from {superblock.tail_tid} on in a clean image"
        context.findings.add(catalogue.LOG_NOT_EMPTY, text, tid=superblock.tail_tid)
    for home, (logged, source) in newest.items():
        if logged > revoked.get(home, -1) and _may_be_logged(context, home):
            context.reader.overlay[home] = source
    return LogContent(transactions, used, newest_tid, newest_tid > tid)


def whole_transactions(context: Context) -> list[Transaction]:
    """The transactions from the tail on, as far as they are whole."""
    log, superblock = LogReader(context), context.superblock
    found: list[Transaction] = []
    position, used = superblock.journal_tail, 0
    while used < log.length:
        transaction = read_transaction(log, position, log.length - used, superblock.tail_tid + len(found))
        if transaction is None:
            break
        found.append(transaction)
        used += transaction.blocks
        position += transaction.blocks
    return found


def read_transaction(log: LogReader, position: int, blocks_left: int, tid: int) -> Transaction | None:
    """The transaction `tid` at `position` if every block and checksum of it is right, else None."""
    fmt = log.context.fmt
    found = Transaction(tid, position % log.length)
    body_crc = index = 0
    while index < blocks_left:
        data = log.block(position + index)
        header = peek(fmt, data)
        if header is None or header[1] != tid or header[2] != index:
            return None
        magic, _, _, count = header
        if magic == MAGIC_COMMIT:
            record = decode_commit(data)
            found.blocks, found.time_ns, found.tail_tid = index + 1, record.time_ns, record.tail_tid
            return found if record.blocks == index and record.body_crc == body_crc else None
        body_crc = fmt.checksum(body_crc, data)
        index += 1
        try:
            if magic == MAGIC_REVOKE:
                found.revokes += decode_revokes(fmt, data, count)
            elif magic == MAGIC_DESCRIPTOR:
                tags = decode_tags(fmt, data, count)
                if index + len(tags) > blocks_left:
                    return None
                for tag in tags:
                    if fmt.checksum(tid, log.block(position + index)) != tag.crc:
                        return None
                    found.images.append((tag.home, log.address(position + index)))
                    index += 1
        except CorruptionError:
            return None
    return None


def _look_for_newer(log: LogReader, position: int, blocks_left: int, tid: int) -> int:
    """Transaction `tid` at `position` is damaged or was never finished: nothing newer may have
    begun. Returns the newest id seen, at least that of the transaction before it.
    """
    context = log.context
    newest = tid - 1
    for data in log.blocks(position, blocks_left):
        header = peek(context.fmt, data)
        if header is not None:
            newest = max(newest, header[1])
    if newest > tid:
        text = f"log: transaction {tid} is damaged, but transaction {newest} follows it"
        context.findings.add(catalogue.LOG_GAP, text, tid=tid, block=log.address(position))
        context.complete = False
    return newest


def _may_be_logged(context: Context, home: int) -> bool:
    """Superblocks and the log itself are never logged; everything else inside the image may be."""
    superblock = context.superblock
    in_log = 0 <= home - superblock.journal_start < superblock.journal_blocks
    return context.fmt.reserved_blocks <= home < superblock.blocks and not in_log


def _check_homes(context: Context, transaction: Transaction) -> None:
    homes = [home for home, _ in transaction.images] + transaction.revokes
    for home in homes:
        if not _may_be_logged(context, home):
            text = f"log: transaction {transaction.tid} logs block {home}"
            context.findings.add(catalogue.LOG_HOME, text, tid=transaction.tid, block=home)


def newest_chain(context: Context) -> tuple[int, int] | None:
    """(position, id) of the first of the whole transactions that lead up to the newest one without a gap, not before
    the one that the newest names as the tail of its time.

    Images are complete, and a block that is freed is revoked: replaying transactions that are at home already changes
    nothing. What is older than the tail may have been overwritten since by a repair, which revokes nothing but leaves a
    transaction with a new tail behind.
    """
    log = LogReader(context)
    whole: dict[int, tuple[int, int, int]] = {}
    for position, data in enumerate(log.blocks(0, log.length)):
        header = peek(context.fmt, data)
        if header is not None and header[2] == 0:
            found = read_transaction(log, position, log.length, header[1])
            if found is not None:
                whole[found.tid] = (position, found.blocks, found.tail_tid)
    if not whole:
        return None
    tid = max(whole)
    tail = whole[tid][2]
    while tid > tail and tid - 1 in whole and sum(whole[tid - 1][:2]) % log.length == whole[tid][0]:
        tid -= 1
    return whole[tid][0], tid


def find_log(context: Context) -> Superblock:
    """The superblock of `context`, which does not say where the log begins, with a log tail: at the beginning of the
    newest transactions if anything in them is not at home, else that of an empty log behind them.
    """
    superblock = context.superblock
    log = LogReader(context)
    seen = (peek(context.fmt, log.block(position)) for position in range(log.length))
    newest = max((header[1] for header in seen if header is not None), default=0)
    chain = newest_chain(context)
    if chain is not None:
        begun = replace(superblock, journal_tail=chain[0], tail_tid=chain[1])
        attempt = Context(context.device, begun, Findings(), Claims(0))
        replay(attempt)
        read = attempt.reader.read_raw
        if any(read(home) != read(source) for home, source in attempt.reader.overlay.items()):
            return begun
    return replace(superblock, journal_tail=0, tail_tid=newest + 1)
