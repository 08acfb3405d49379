"""Pass 7: the orphan table against the inodes without links."""

from __future__ import annotations

from typing import Final

from deferfs.check import catalogue
from deferfs.check.context import Context
from deferfs.check.table import DAMAGED, FREE, InodeTable
from deferfs.errors import CorruptionError
from deferfs.ondisk.inode import ORPHAN_FILE_INO
from deferfs.ondisk.node import UNWRITTEN
from deferfs.ondisk.orphan import ORPHAN_QUARANTINED, OrphanBlock, OrphanSlot

BAD_BLOCKS_MAX: Final = 1024
"""More blocks without slots than this, and the orphan file counts as damaged: it may cover a huge sparse image."""


def check_orphans(context: Context, table: InodeTable) -> int:
    """Every inode without links has exactly one slot, and each slot in use names one; the number of
    these slots.
    """
    check = _OrphanCheck(context, table)
    logical = 0
    for extent in context.steps("orphans", table.orphan_file):
        if extent.logical > logical:
            text = f"orphan file: nothing mapped from block {logical} to {extent.logical - 1}"
            context.findings.add(catalogue.ORPHAN_HOLE, text, logical=logical)
        if extent.flags & UNWRITTEN:
            text = f"orphan file: unwritten extent at logical block {extent.logical}"
            context.findings.add(catalogue.INTERNAL_UNWRITTEN, text, ino=ORPHAN_FILE_INO, logical=extent.logical)
        logical = extent.end
        for offset in range(extent.length):
            if check.bad > BAD_BLOCKS_MAX:
                break
            check.block(extent.logical + offset, extent.physical + offset)
    check.finish()
    return check.slots


class _OrphanCheck:
    def __init__(self, context: Context, table: InodeTable) -> None:
        self.context = context
        self.table = table
        self.seen = bytearray(len(table.types))
        self.slots = 0
        self.bad = 0

    def _report(self, kind: catalogue.Kind, number: int, ino: int, text: str) -> None:
        message = f"orphan slot {number}: inode {ino}: {text}"
        self.context.findings.add(kind, message, slot=number, ino=ino)

    def block(self, logical: int, address: int) -> None:
        """Check the slots of one block of the orphan file."""
        fmt = self.context.fmt
        data = self.context.reader.read(address)
        try:
            if data is None:
                raise CorruptionError("cannot be read")
            slots = OrphanBlock.decode(fmt, address, data).slots
            owner, count, _ = fmt.open_header(address, data, OrphanBlock.MAGIC)
            used = sum(1 for slot in slots if slot.ino)
            if owner != ORPHAN_FILE_INO or count != used:
                raise CorruptionError(f"owner {owner}, count {count}, {used} slots used")
        except CorruptionError as error:
            text = f"orphan file: logical block {logical} in block {address}: {error.detail}"
            self.context.findings.add(catalogue.ORPHAN_BLOCK, text, logical=logical, block=address)
            self.context.complete = False
            self.bad += 1
            return
        first = logical * fmt.orphans_per_block
        for number, slot in enumerate(slots, first):
            if slot.ino:
                self.slots += 1
                self._slot(number, slot)

    def _slot(self, number: int, slot: OrphanSlot) -> None:
        table, ino = self.table, slot.ino
        at = table.slot(ino)
        found = FREE if at < 0 else table.types[at]
        if found == DAMAGED:
            return
        if found == FREE:
            self._report(catalogue.ORPHAN_DEAD, number, ino, "not in use")
            return
        named = table.orphan_slots.get(ino)
        if named is None:
            self._report(catalogue.ORPHAN_LINKED, number, ino, f"has {table.nlink[at]} links")
            return
        if table.generation[at] != slot.generation:
            text = f"generation {slot.generation}, the inode has {table.generation[at]}"
            self._report(catalogue.ORPHAN_GENERATION, number, ino, text)
        if self.seen[at] or named != number + 1:
            self._report(catalogue.ORPHAN_SLOT, number, ino, f"its record names slot {named - 1}")
        elif slot.blocks != table.orphan_blocks[ino]:
            text = f"{slot.blocks} blocks, the inode holds {table.orphan_blocks[ino]}"
            self._report(catalogue.ORPHAN_BLOCKS, number, ino, text)
        if slot.flags & ORPHAN_QUARANTINED:
            self._report(catalogue.INODE_QUARANTINED, number, ino, "in quarantine, its inactivation failed")
        self.seen[at] = 1

    def finish(self) -> None:
        """Report the inodes without links that no slot named."""
        for ino in self.table.orphan_slots:
            if not self.seen[self.table.slot(ino)]:
                text = f"inode {ino}: no links, but in no orphan slot"
                self.context.findings.add(catalogue.ORPHAN_LOST, text, ino=ino)
