"""The repair: all steps in order, in memory; a full check of the outcome; and only then the disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from bitarray import bitarray

from deferfs.check import catalogue
from deferfs.check.checker import check_image
from deferfs.check.context import Progress
from deferfs.check.repair.context import NoFreeBlockError, RepairContext, RepairLog
from deferfs.check.repair.extents import ExtentMender
from deferfs.check.repair.inodefile import find_inode_table
from deferfs.check.repair.layout import Layout, write_bitmaps
from deferfs.check.repair.log import recover
from deferfs.check.repair.lost import reconnect, settle_records
from deferfs.check.repair.names import mend_directories
from deferfs.check.repair.records import mend_records
from deferfs.check.repair.scan import Marks, find_lost_leaves
from deferfs.check.repair.spares import name_spares, settle_spares
from deferfs.check.repair.superblocks import correct_copies, more_plausible
from deferfs.check.repair.table import claim_bitmaps, settle_table
from deferfs.check.repair.writeout import WriteOut
from deferfs.check.report import Findings, Report
from deferfs.check.superblocks import read_superblock
from deferfs.check.table import InodeTable
from deferfs.device.base import Device
from deferfs.errors import ImageError
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.superblock import COUNTER_SANE_MAX, STATE_CLEAN, Superblock

ROUNDS_MAX: Final = 3
"""Repairs in a row, at most. One is enough for all damage that we know of; another is tried when the check still finds
something."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did: `actions` in words (the first of `actions_total`), and what the check finds afterwards.
    `exact` says that nothing was lost, and nothing guessed.
    """

    actions: tuple[str, ...]
    actions_total: int
    report: Report
    exact: bool


def recover_log(device: Device, now_ns: int) -> None:
    """Replay the log and leave the image marked unclean, with an empty log. ImageError, DeviceError."""
    recover(device, read_superblock(device, Findings()), now_ns, RepairLog().note)


def mark(device: Device, now_ns: int, *, clean: bool) -> None:
    """Write both superblocks of an image whose log is empty: nothing is wrong, or (not `clean`) errors are left."""
    WriteOut(device, read_superblock(device, Findings()), now_ns, through_log=False).finish(clean=clean)


def repair_image(
    device: Device, now_ns: int, *, progress: Progress | None = None, narrow: bool = False, spare: int | None = None
) -> Repaired:
    """Replay the log and repair everything that the check finds. `device` is written. With `spare`, the spare
    superblock at that byte is the one to begin with.

    With `narrow`, directories whose names have 55-bit hashes get 31-bit ones: readdir offsets change. The entries of
    one directory must fit into memory then, at some 230 bytes each.

    ImageError when there is nothing to start from: no superblock, or not one inode record; then at most the log has
    been replayed. DeviceError when the image cannot be written.
    """
    repair_log = RepairLog()
    correct_copies(device, repair_log)
    findings = Findings()
    best = read_superblock(device, findings, spare)
    lost = [problem for problem in findings.problems if problem.number == catalogue.SUPERBLOCK_LOST.number]
    for problem in lost:
        repair_log.note(f"superblock: both copies written from the spare one at byte {problem.where['offset']}")
    superblock = best if lost else more_plausible(device, best)
    if superblock is not best:
        repair_log.note("superblock: constants of the older copy taken, which fit the image better")
    superblock = recover(device, superblock, now_ns, repair_log.note)
    if narrow:
        superblock = superblock.with_keys31()
    for _ in range(ROUNDS_MAX):
        out = WriteOut(device, superblock, now_ns, through_log=False)
        repair = RepairContext(
            device,
            superblock,
            now_ns,
            spill=partial(_spill, out),
            repair_log=repair_log,
            progress=progress,
            narrow=narrow,
        )
        try:
            moved = _steps(repair)
        except NoFreeBlockError as error:
            raise ImageError(f"{device.name}: no free block is left for what the repair has to write") from error
        _put_superblocks(repair)
        report = check_image(repair.device, progress=progress)
        superblock = _write_out(repair, out, through_log=not moved, clean=report.clean and report.complete)
        if report.clean and report.complete:
            break
    return Repaired(tuple(repair_log.texts), repair_log.total, report, not repair_log.lossy)


def _steps(repair: RepairContext) -> bool:
    """Decide everything; whether an area was moved."""
    file = find_inode_table(repair)
    if file is None:
        raise ImageError(f"{repair.device.name}: not one inode record can be read; nothing to repair it from")
    repair.file, repair.table = file, InodeTable(repair.fmt, file)
    repair.doubtful = bitarray(len(repair.table.types))
    repair.claim(0, repair.fmt.reserved_blocks, structure=True)
    name_spares(repair)
    mend_records(repair)
    claim_bitmaps(repair)
    find_lost_leaves(repair)
    Marks(repair).use_last()
    layout = Layout(repair)
    layout.claim()
    mender = ExtentMender(repair)
    mender.mend_all()
    layout.move()
    mender.finish()
    mend_directories(repair)
    reconnect(repair)
    settle_records(repair)
    settle_table(repair)
    settle_spares(repair)
    write_bitmaps(repair)
    return layout.moved


def _put_superblocks(repair: RepairContext) -> None:
    """For the check of the outcome; they are written to the disk by other means, which also renumber (105)."""
    if repair.superblock.sequence > COUNTER_SANE_MAX:
        repair.superblock = replace(repair.superblock, sequence=0)
    for _ in SUPERBLOCK_OFFSETS:
        repair.superblock = repair.superblock.next(state=STATE_CLEAN, journal_tail=0)
        repair.device.write(SUPERBLOCK_OFFSETS[repair.superblock.sequence % 2], repair.superblock.encode())


def _changed(repair: RepairContext) -> dict[int, bytes]:
    return {address: data for address, data in repair.device.pages.items() if address >= repair.fmt.reserved_blocks}


def _write_out(repair: RepairContext, out: WriteOut, *, through_log: bool, clean: bool) -> Superblock:
    decided = replace(repair.superblock, sequence=out.superblock.sequence, tail_tid=out.superblock.tail_tid)
    out.superblock, out.through_log = decided, through_log
    out.begun = False
    out.write(_changed(repair), repair.fresh)
    out.finish(clean=clean)
    return out.superblock


def _spill(out: WriteOut, repair: RepairContext) -> None:
    """More has changed than memory should hold: bring it to the disk now, marked as damaged until the end."""
    out.write(_changed(repair), repair.fresh)
    repair.device.pages.clear()
