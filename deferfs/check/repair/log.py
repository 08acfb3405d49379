"""Replaying the log for good: every block home, then an empty log. It can be interrupted and repeated."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.log import LogReader, read_transaction, replay
from deferfs.check.repair.superblocks import read_copies
from deferfs.check.report import Findings
from deferfs.device.base import Device
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.journal import peek
from deferfs.ondisk.superblock import COUNTER_SANE_MAX, STATE_CLEAN, Superblock

_WIPE_BLOCKS: Final = 64


def recover(device: Device, superblock: Superblock, now_ns: int) -> Superblock:
    """Write home what the log holds, up to a damaged transaction if there is one, and empty it.

    The log of an image that was left clean holds nothing that is not at home: it is only emptied. Returns the
    superblock written. DeviceError.
    """
    context = _context(device, superblock)
    content = replay(context)
    if content.damaged and len(read_copies(device)) < len(SUPERBLOCK_OFFSETS):
        # The superblock that counted is lost, and this one names a tail that has been left behind.
        chain = _newest_chain(context)
        if chain is not None:
            context = _context(device, replace(superblock, journal_tail=chain[0], tail_tid=chain[1]))
            content = replay(context)
    size = superblock.block_size
    if not superblock.clean:
        for home, source in sorted(context.reader.overlay.items()):
            data = context.reader.read_raw(source)
            if data is not None:
                device.write(home * size, data)
        device.flush()
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
    """Wipe the log, in which ids have come to their end by damage; the first id of the new count."""
    size = superblock.block_size
    first, end = superblock.journal_start, superblock.journal_start + superblock.journal_blocks
    for address in range(first, end, _WIPE_BLOCKS):
        device.write(address * size, bytes(min(_WIPE_BLOCKS, end - address) * size))
    device.flush()
    return 1


def _context(device: Device, superblock: Superblock) -> Context:
    return Context(device, superblock, Findings(), Claims(0))


def _newest_chain(context: Context) -> tuple[int, int] | None:
    """(position, id) of the first of the whole transactions that lead up to the newest one without a gap.

    Images are complete, so replaying transactions that are at home already changes nothing.
    """
    log = LogReader(context)
    whole: dict[int, tuple[int, int]] = {}
    for position in range(log.length):
        header = peek(context.fmt, log.block(position))
        if header is not None and header[2] == 0:
            found = read_transaction(log, position, log.length, header[1])
            if found is not None:
                whole[found.tid] = (position, found.blocks)
    if not whole:
        return None
    tid = max(whole)
    while tid - 1 in whole and sum(whole[tid - 1]) % log.length == whole[tid][0]:
        tid -= 1
    return whole[tid][0], tid
