"""Bringing a repair to the disk.

What was changed goes through the log, in transactions as a mount would write them: each is on disk as a whole or not at
all, and a block that is torn while it is overwritten is replayed. The superblock says "errors" and "repairing" from
before the first to after the last of them; so whatever interrupts a repair, the next fsck looks at everything again,
and no mount writes before it has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from deferfs.device.base import Device
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.journal import Commit, Tag, encode_commit, encode_descriptor, transaction_blocks
from deferfs.ondisk.superblock import COUNTER_SANE_MAX, STATE_CLEAN, STATE_ERRORS, STATE_REPAIRING, Superblock

IMAGES_MAX: Final = 4096
"""Blocks of one transaction: bounds what has to be replayed, and the memory for it."""


class WriteOut:
    """Writes blocks to `device`. `superblock` is the one last written; its log is empty between transactions."""

    def __init__(self, device: Device, superblock: Superblock, now_ns: int, *, through_log: bool) -> None:
        self.device = device
        self.superblock = superblock
        self.now_ns = now_ns
        self.through_log = through_log
        self.begun = False

    def put_superblock(self, **changes: object) -> None:
        """Write and flush the next superblock, in the place of the older copy."""
        self.superblock = self.superblock.next(written_ns=self.now_ns, **changes)
        self.device.write(SUPERBLOCK_OFFSETS[self.superblock.sequence % 2], self.superblock.encode())
        self.device.flush()

    def begin(self) -> None:
        """From here on the image counts as damaged."""
        if not self.begun:
            self.begun = True
            self.put_superblock(state=STATE_ERRORS | STATE_REPAIRING, journal_tail=0)

    def write(self, pages: dict[int, bytes], first: set[int]) -> None:
        """Write all of `pages`; those in `first`, to which nothing refers yet, before the others."""
        self.begin()
        addresses = sorted(first & pages.keys()) + sorted(pages.keys() - first)
        step = self._images_per_transaction()
        for at in range(0, len(addresses), step):
            batch = {address: pages[address] for address in addresses[at : at + step]}
            if self.through_log:
                self._log(batch)
            for address, data in batch.items():
                self.device.write(address * len(data), data)
            self.device.flush()
            if self.through_log:
                self.put_superblock(journal_tail=0, tail_tid=self.superblock.tail_tid + 1)

    def finish(self, *, clean: bool) -> None:
        """An empty transaction, then both superblocks, last of all; `clean` says that nothing is wrong any more.

        The transaction says that nothing before it counts: a repair changes blocks past the log, and without any
        superblock only the log shows where it begins.
        """
        self._log({})
        self.put_superblock(journal_tail=0, tail_tid=self.superblock.tail_tid + 1)
        state = STATE_CLEAN if clean else STATE_CLEAN | STATE_ERRORS
        for _ in SUPERBLOCK_OFFSETS:
            self.put_superblock(state=state, journal_tail=0)
        if self.superblock.sequence > COUNTER_SANE_MAX:
            # the copies say the same: the older one becomes the oldest of a new count, then the other its successor
            newest = self.superblock.sequence % 2
            for sequence in (1 - newest, 2 + newest):
                self.superblock = replace(self.superblock, sequence=sequence)
                self.device.write(SUPERBLOCK_OFFSETS[sequence % 2], self.superblock.encode())
                self.device.flush()

    def _images_per_transaction(self) -> int:
        fmt, images = self.superblock.format, IMAGES_MAX
        while images > 1 and transaction_blocks(fmt, images, 0) > self.superblock.journal_blocks:
            images //= 2
        return images

    def _log(self, batch: dict[int, bytes]) -> None:
        fmt, tid, start = self.superblock.format, self.superblock.tail_tid, self.superblock.journal_start
        index = crc = 0
        addresses = list(batch)
        for at in range(0, len(addresses), fmt.tags_per_descriptor):
            part = addresses[at : at + fmt.tags_per_descriptor]
            descriptor = encode_descriptor(
                fmt, tid, index, [Tag(address, fmt.checksum(tid, batch[address])) for address in part]
            )
            crc = fmt.checksum(crc, descriptor)
            self.device.writev((start + index) * fmt.block_size, [descriptor, *(batch[a] for a in part)])
            index += 1 + len(part)
        commit = encode_commit(fmt, tid, index, Commit(index, crc, self.now_ns, tid))
        self.device.write((start + index) * fmt.block_size, commit)
        self.device.flush()
