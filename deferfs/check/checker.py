"""The check: all passes in order. It reads, and never writes."""

from __future__ import annotations

from dataclasses import replace

from deferfs.check.claims import Claims
from deferfs.check.context import Context, Progress
from deferfs.check.directories import check_directories
from deferfs.check.freespace import check_free_space
from deferfs.check.inodefile import read_inode_file
from deferfs.check.inodes import check_table
from deferfs.check.links import check_links
from deferfs.check.log import replay
from deferfs.check.orphans import check_orphans
from deferfs.check.report import Counts, Findings, Report
from deferfs.check.sharing import report_shared
from deferfs.check.spares import check_spares
from deferfs.check.superblocks import claim_fixed_areas, read_superblock
from deferfs.check.table import (
    DAMAGED,
    FREE,
    TYPE_DIRECTORY,
    TYPE_FILE,
    TYPE_SYMLINK,
    InodeTable,
)
from deferfs.device.base import Device
from deferfs.ondisk.inode import FIRST_INO


def check_image(device: Device, *, progress: Progress | None = None, spare: int | None = None) -> Report:
    """Check every structure of the image on `device` as it will be once its log is replayed. With `spare`, as the spare
    superblock at that byte describes it.

    Raises ImageError when there is no filesystem to check: no valid superblock, features only a
    newer program knows, or a device shorter than the filesystem. Everything else that is wrong is
    in the report.
    """
    findings = Findings()
    superblock = read_superblock(device, findings, spare)
    context = Context(device, superblock, findings, Claims(superblock.blocks), progress)
    claim_fixed_areas(context)
    transactions = replay(context).transactions
    check_spares(context)
    counts = Counts(transactions=transactions)
    inode_file = read_inode_file(context)
    if inode_file is not None:
        table = check_table(context, inode_file)
        wide = check_directories(context, table)
        check_links(context, table)
        report_shared(context)
        orphans = check_orphans(context, table)
        free = check_free_space(context)
        counts = replace(_count(context, table, orphans, free, transactions), wide_directories=wide)
    return Report(superblock, counts, tuple(findings.problems), findings.suppressed, context.complete)


def _count(context: Context, table: InodeTable, orphans: int, free: int, transactions: int) -> Counts:
    types = table.types
    directories, files, symlinks = map(types.count, (TYPE_DIRECTORY, TYPE_FILE, TYPE_SYMLINK))
    internal = sum(1 for ino in range(FIRST_INO) if table.type_of(ino) == TYPE_FILE)
    inodes = len(types) - types.count(FREE) - types.count(DAMAGED) - internal
    files -= internal
    return Counts(
        inodes=inodes,
        directories=directories,
        files=files,
        symlinks=symlinks,
        others=inodes - directories - files - symlinks,
        orphans=orphans,
        blocks_used=context.claims.bits.count(1),
        free_blocks=free,
        transactions=transactions,
    )
