"""Replaying the log for good: every block home, then an empty log. It can be interrupted and repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Protocol

from deferfs.check import catalogue
from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.log import LogContent, LogReader, newest_chain, replay
from deferfs.check.repair.bits import correct_block, correct_image
from deferfs.check.repair.superblocks import read_copies
from deferfs.check.report import Findings
from deferfs.device.base import Device
from deferfs.errors import CorruptionError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.journal import MAGIC_COMMIT, MAGIC_DESCRIPTOR, decode_tags, peek
from deferfs.ondisk.superblock import COUNTER_SANE_MAX, STATE_CLEAN, Superblock

_WIPE_BLOCKS: Final = 64
"""Blocks that one write wipes."""


class Note(Protocol):
    """`RepairLog.note`."""

    def __call__(self, text: str, *, loses: bool = True) -> None: ...


def recover(device: Device, superblock: Superblock, now_ns: int, note: Note) -> Superblock:
    """Write home what the log holds, up to a damaged transaction if there is one, and empty it.

    The log of an image that was left clean holds nothing that is not at home: it is only emptied. Returns the
    superblock written; `note` gets what else was done. DeviceError.
    """
    context = _context(device, superblock)
    content = replay(context)
    while content.damaged and not superblock.clean and _correct_transaction(context, content, note):
        context = _context(device, superblock)
        content = replay(context)
    if content.damaged and len(read_copies(device)) < len(SUPERBLOCK_OFFSETS):
        # The newer superblock is lost, and this one names a tail that the log has passed.
        chain = newest_chain(context)
        if chain is not None:
            context = _context(device, replace(superblock, journal_tail=chain[0], tail_tid=chain[1]))
            content = replay(context)
    if not superblock.clean:
        _write_home(context, content, note)
    following = max(content.newest_tid + 1, superblock.tail_tid)
    if following > COUNTER_SANE_MAX:
        following = _start_over(device, superblock)
    renewed = superblock.next(
        journal_tail=0,
        tail_tid=following,
        written_ns=now_ns,
        state=superblock.state & ~STATE_CLEAN,
    )
    device.write(SUPERBLOCK_OFFSETS[renewed.sequence % 2], renewed.encode())
    device.flush()
    return renewed


def _start_over(device: Device, superblock: Superblock) -> int:
    """Wipe a log whose transaction ids damage has brought near their end. Returns the first id of the new count."""
    size = superblock.block_size
    first, end = superblock.journal_start, superblock.journal_start + superblock.journal_blocks
    for address in range(first, end, _WIPE_BLOCKS):
        device.write(address * size, bytes(min(_WIPE_BLOCKS, end - address) * size))
    device.flush()
    return 1


def _write_home(context: Context, content: LogContent, note: Note) -> None:
    """Bring home what can be replayed, and say what cannot."""
    if content.damaged:
        tid = context.superblock.tail_tid + content.transactions
        note(f"log: transaction {tid} is damaged; it is dropped, and all up to {content.newest_tid}")
    for problem in context.findings.problems:
        if problem.number == catalogue.LOG_HOME.number:
            note(f"{problem.message}: not replayed")
    size = context.fmt.block_size
    for home, source in sorted(context.reader.overlay.items()):
        data = context.reader.read_raw(source)
        if data is None:
            note(f"log: block {source}, the image of block {home}, cannot be read: not replayed")
        else:
            context.device.write(home * size, data)
    context.device.flush()


def _correct_transaction(context: Context, content: LogContent, note: Note) -> bool:
    """Write the damaged transaction back as it was, if every block of it is sound or has a single wrong bit."""
    log, superblock = LogReader(context), context.superblock
    tid, position = superblock.tail_tid + content.transactions, superblock.journal_tail + content.blocks
    right = _corrected_blocks(log, position, log.length - content.blocks, tid)
    if not right:
        return False
    for at, data in right.items():
        context.device.write(log.address(at) * context.fmt.block_size, data)
    note(f"log: transaction {tid}: one bit was wrong, and is corrected", loses=False)
    return True


def _corrected_blocks(log: LogReader, position: int, blocks_left: int, tid: int) -> dict[int, bytes]:
    """Position -> content of the blocks of transaction `tid` that have to be written; none when that does not help."""
    fmt, right = log.context.fmt, dict[int, bytes]()
    at, end = position, position + blocks_left
    while at < end:
        data = log.block(at)
        header = peek(fmt, data)
        if header is None:
            data = right[at] = correct_block(fmt, tid, data) or b""
            header = peek(fmt, data) if data else None
        if header is None or header[1] != tid or header[2] != at - position:
            return {}
        at += 1
        if header[0] == MAGIC_COMMIT:
            return right
        try:
            tags = decode_tags(fmt, data, header[3]) if header[0] == MAGIC_DESCRIPTOR else []
        except CorruptionError:
            return {}
        for tag in tags:
            image = log.block(at)
            if fmt.checksum(tid, image) != tag.crc:
                right[at] = correct_image(fmt, tid, tag.crc, image) or b""
                if not right[at]:
                    return {}
            at += 1
    return {}


def _context(device: Device, superblock: Superblock) -> Context:
    return Context(device, superblock, Findings(), Claims(0))
