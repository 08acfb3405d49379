"""Where the inode table lies: as the inode file says or, when that cannot be trusted, as the records themselves say.

A record carries its own number, and its checksum the address it was written to: so a scan of the image finds every
block of the table.
"""

from __future__ import annotations

from typing import NamedTuple

from deferfs.check.claims import Claims
from deferfs.check.context import Context
from deferfs.check.extents import Mapping
from deferfs.check.inodefile import InodeFile, read_inode_file
from deferfs.check.repair.context import RepairContext
from deferfs.check.repair.salvage import sound_record
from deferfs.check.repair.scan import TREES, Marks, owner_of_leaf, used_blocks
from deferfs.check.repair.trees import Remains
from deferfs.check.report import Findings
from deferfs.errors import CorruptionError
from deferfs.ondisk.format import INODE_BYTES
from deferfs.ondisk.inode import FORM_EXTENT_TREE, INODE_FILE_INO, MAGIC, Inode
from deferfs.ondisk.node import ExtentNode

_INO_MAX = 1 << 62
"""Inode numbers lie below; larger ones in an image are damage."""


class _Found(NamedTuple):
    """A block that holds records of the inode table. The best of several for one place is the largest."""

    mapped: bool
    marked: bool
    newest: int
    address: int


def find_inode_table(repair: RepairContext) -> InodeFile | None:
    """Where the table lies; None when the image holds not a single record of this filesystem."""
    _correct(repair)
    findings = Findings()
    context = Context(repair.device, repair.superblock, findings, Claims(repair.superblock.blocks))
    file = read_inode_file(context)
    if file is not None and not findings.problems and _trustworthy(repair, file):
        return file
    repair.note("inode file: remapped from the records found on the image")
    return _mapped_by_scan(repair, file)


def _correct(repair: RepairContext) -> None:
    """Correct single wrong bits in the record of the inode file and in its tree, so that it can be read."""
    block, slot = divmod(INODE_FILE_INO, repair.fmt.inodes_per_block)
    address, at = repair.superblock.inode_root + block, slot * INODE_BYTES
    data = repair.read(address) if repair.inside(address, 1) else None
    if data is None:
        return
    inode = sound_record(repair, INODE_FILE_INO, address, data[at : at + INODE_BYTES])
    if inode is None:
        return
    repair.write(address, data[:at] + inode.encode(repair.fmt, address) + data[at + INODE_BYTES :])
    if inode.form == FORM_EXTENT_TREE:
        for _ in Remains(repair, ExtentNode, INODE_FILE_INO, inode.root).leaves():
            pass


def records_at(repair: RepairContext, address: int, data: bytes | None) -> list[Inode]:
    """The sound records of a block, whatever inodes they are."""
    found: list[Inode] = []
    for at in range(0, len(data or b""), INODE_BYTES):
        assert data is not None
        if data[at + 4 : at + 8] == MAGIC:
            try:
                found.append(Inode.decode(repair.fmt, address, data[at : at + INODE_BYTES]))
            except CorruptionError:
                continue
    return found


def _trustworthy(repair: RepairContext, file: InodeFile) -> bool:
    """Whether each chunk holds a record of its own, and no block records of others."""
    fmt = repair.fmt
    for number in file.chunks:
        first, own = number * fmt.inodes_per_chunk, False
        for index in range(fmt.chunk_blocks):
            address = file.block(number, index)
            for inode in records_at(repair, address, repair.read(address)):
                if (inode.ino - first) // fmt.inodes_per_block != index:
                    return False
                own = True
        if not own:
            return False
    return True


def _mapped_by_scan(repair: RepairContext, file: InodeFile | None) -> InodeFile | None:
    places: dict[tuple[int, int], _Found] = {}
    owners: set[int] = set()
    mapped, marks, fmt = _addresses(file), Marks(repair), repair.fmt
    chunks = fmt.inode_groups_max(repair.superblock.blocks) * fmt.chunks_per_inode_group
    for address, data in used_blocks(repair, marks, (MAGIC, *TREES), mapped):
        if marks.used(address) and (owner := owner_of_leaf(repair, address, data)) is not None:
            owners.add(owner // fmt.inodes_per_chunk)
        place, newest = _place_of(repair, records_at(repair, address, data))
        if place is None or place[0] >= chunks:
            continue
        found = _Found(address in mapped, marks.used(address), newest, address)
        if found.mapped or found.marked:
            places[place] = max(places.get(place, found), found)
    return _file_of(repair, places, {number for number in owners if number < chunks})


def _addresses(file: InodeFile | None) -> set[int]:
    if file is None:
        return set()
    return {file.block(number, index) for number in file.chunks for index in range(file.chunk_blocks)}


def _place_of(repair: RepairContext, records: list[Inode]) -> tuple[tuple[int, int] | None, int]:
    """((chunk, block in it), newest time) of a block of records; None when they do not agree, or there are none."""
    fmt = repair.fmt
    blocks = {inode.ino // fmt.inodes_per_block for inode in records if inode.ino < _INO_MAX}
    if len(blocks) != 1:
        return None, 0
    (block,) = blocks
    return divmod(block, fmt.chunk_blocks), max(inode.ctime for inode in records)


def _file_of(repair: RepairContext, places: dict[tuple[int, int], _Found], owners: set[int]) -> InodeFile | None:
    """The table of the blocks found. Trees were found of inodes in the chunks `owners`: these are mapped even where no
    block of them is left."""
    if not places:
        return None
    fmt = repair.fmt
    context = Context(repair.device, repair.superblock, Findings(), Claims(repair.superblock.blocks))
    file = InodeFile(Mapping(context, Inode(INODE_FILE_INO)), fmt.chunk_blocks)
    first = places.get((0, 0))
    root = repair.superblock.inode_root
    if first is not None and first.address != root and repair.inside(first.address, fmt.chunk_blocks):
        root = first.address
        repair.superblock = repair.superblock.next(inode_root=root)
    file.chunks[0] = root
    for number in sorted((owners | {chunk for chunk, _ in places}) - {0}):
        blocks = [places.get((number, index)) for index in range(fmt.chunk_blocks)]
        addresses = [0 if found is None else found.address for found in blocks]
        file.chunks[number], file.scattered[number] = addresses[0], addresses
    return file
