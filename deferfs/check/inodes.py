"""Pass 4: every record of the inode table against its bitmap, and every inode by itself."""

from __future__ import annotations

from bitarray import bitarray

from deferfs.check import catalogue
from deferfs.check.claims import runs_of_ones
from deferfs.check.context import Context
from deferfs.check.extents import Mapping
from deferfs.check.inodefile import InodeFile
from deferfs.check.records import check_free_record, check_inode, check_special
from deferfs.check.table import DAMAGED, FREE, InodeTable
from deferfs.errors import CorruptionError
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import (
    FIRST_INO,
    FORM_DIRECTORY_TREE,
    INODE_FILE_INO,
    ORPHAN_FILE_INO,
    Inode,
)


def check_table(context: Context, file: InodeFile) -> InodeTable:
    """Check all inodes. Returns what the later passes need of them."""
    table = InodeTable(context.fmt, file)
    per_group = context.fmt.chunks_per_inode_group
    groups = {number // per_group for number in file.chunks} | file.bitmaps.keys()
    checks = {group: _GroupCheck(context, file, table, group) for group in sorted(groups)}
    for number in context.steps("inodes", sorted(file.chunks)):
        checks[number // per_group].check_chunk(number)
    for check in checks.values():
        check.check_bitmap()
    return table


def read_bitmap(context: Context, address: int, group: int, damaged: catalogue.Kind, what: str) -> Bitmap | None:
    """The bitmap of `group` at `address`; None, with a problem of kind `damaged`, when it cannot be
    used.
    """
    data = context.reader.read(address)
    if data is None:
        return None
    try:
        bitmap = Bitmap.decode(context.fmt, address, data)
    except CorruptionError as error:
        text = f"{what} of group {group}: {error.detail}"
        context.findings.add(damaged, text, group=group, block=address)
        return None
    if bitmap.owner != group:
        text = f"{what} of group {group} in block {address}: belongs to group {bitmap.owner}"
        context.findings.add(catalogue.BITMAP_OWNER, text, group=group, block=address)
    _, count, _ = context.fmt.open_header(address, data, Bitmap.MAGIC)
    if count != bitmap.bits.count(1):
        text = f"{what} of group {group}: counts {count}, {bitmap.bits.count(1)} are set"
        context.findings.add(catalogue.BITMAP_COUNT, text, group=group, block=address)
    return bitmap


class _GroupCheck:
    """The inodes of one group. `seen` gathers what the bitmap ought to say."""

    def __init__(self, context: Context, file: InodeFile, table: InodeTable, group: int) -> None:
        self.context = context
        self.file = file
        self.table = table
        self.group = group
        self.chunks = 0
        self.seen = bitarray(context.fmt.bits_per_bitmap, endian="little")
        self.unknown: list[int] = []
        """Indexes of damaged records: what the bitmap says of them stands."""

    def check_chunk(self, number: int) -> None:
        """Look at each record of a chunk of this group."""
        context, table = self.context, self.table
        fmt = context.fmt
        self.chunks += 1
        ino, first_slot = number * fmt.inodes_per_chunk, table.bases[number]
        slot = first_slot
        for address, length in self.file.pieces(number):
            for block, data in enumerate(context.reader.read_run(address, length), address):
                for at in range(0, fmt.block_size, INODE_BYTES):
                    raw = None if data is None else data[at : at + INODE_BYTES]
                    self._check_record(ino, slot, block, raw)
                    ino += 1
                    slot += 1
        if number > 0 and not any(table.types[first_slot:slot]):
            text = f"inode table: chunk {number} holds no inode"
            context.findings.add(catalogue.INODE_CHUNK_EMPTY, text, chunk=number)

    def _check_record(self, ino: int, slot: int, address: int, raw: bytes | None) -> None:
        context = self.context
        index = ino % context.fmt.inodes_per_group
        inode = None if raw is None else self._decode(ino, address, raw)
        if inode is None or raw is None:
            self.table.types[slot] = DAMAGED
            self.unknown.append(index)
            context.complete = False
        elif ino < FIRST_INO:
            self.seen[index] = 1
            check_special(context, ino, inode)
            if inode.mode != FREE:
                self._check_used(inode, slot, address, raw)
        elif inode.mode == FREE:
            check_free_record(context, inode)
        else:
            self.seen[index] = 1
            self._check_used(inode, slot, address, raw)

    def _check_used(self, inode: Inode, slot: int, address: int, raw: bytes) -> None:
        self.table.enter(slot, inode)
        mapping: Mapping | None = None
        if inode.ino == INODE_FILE_INO:
            mapping = self.file.mapping
        elif inode.ino == ORPHAN_FILE_INO:
            mapping = Mapping(self.context, inode)
            self.table.orphan_file = list(mapping.extents())
        held = check_inode(self.context, inode, address, raw, mapping)
        if inode.form == FORM_DIRECTORY_TREE:
            self.table.held[inode.ino] = held

    def _decode(self, ino: int, address: int, raw: bytes) -> Inode | None:
        findings = self.context.findings
        try:
            inode = Inode.decode(self.context.fmt, address, raw)
        except CorruptionError as error:
            text = f"inode {ino}: {error.detail}"
            findings.add(catalogue.INODE_RECORD, text, ino=ino, block=address)
            return None
        if inode.ino != ino:
            text = f"inode {ino}: its record says inode {inode.ino}"
            findings.add(catalogue.INODE_MISPLACED, text, ino=ino, block=address)
            return None
        return inode

    def check_bitmap(self) -> None:
        """Compare the group's bitmap with what was found."""
        context, group = self.context, self.group
        address = self.file.bitmaps.get(group)
        if address is None:
            text = f"inode table: group {group} has no bitmap"
            context.findings.add(catalogue.INODE_BITMAP_MISSING, text, group=group)
            return
        if not self.chunks and group:
            text = f"inode table: group {group} has a bitmap but no inodes"
            context.findings.add(catalogue.INODE_BITMAP_SPARE, text, group=group, block=address)
        bitmap = read_bitmap(context, address, group, catalogue.INODE_BITMAP_DAMAGED, "inode bitmap")
        if bitmap is None:
            return
        for index in self.unknown:
            self.seen[index] = bitmap.bits[index]
        first = group * context.fmt.inodes_per_group
        for start, end in runs_of_ones(self.seen & ~bitmap.bits):
            for ino in range(first + start, first + end):
                text = f"inode {ino}: in use, but marked free"
                context.findings.add(catalogue.INODE_MARKED_FREE, text, ino=ino)
        for start, end in runs_of_ones(bitmap.bits & ~self.seen):
            for ino in range(first + start, first + end):
                text = f"inode {ino}: free, but marked in use"
                context.findings.add(catalogue.INODE_MARKED_USED, text, ino=ino)
