"""Pass 9, only when blocks were claimed twice: the passes that claim are repeated to find the owners."""

from __future__ import annotations

from deferfs.check import catalogue
from deferfs.check.claims import OwnerTracker, Run, blocks_text
from deferfs.check.context import Context
from deferfs.check.directories import check_directories
from deferfs.check.inodefile import read_inode_file
from deferfs.check.inodes import check_table
from deferfs.check.report import PROBLEMS_PER_KIND, Findings
from deferfs.check.spares import claim_spares
from deferfs.check.superblocks import claim_fixed_areas

_OWNERS_NAMED = 8
"""Owners that a problem names; more are shown as "..."."""


def report_shared(context: Context) -> None:
    """Report every run of shared blocks with its owners."""
    contested = _joined(context.claims.contested)
    if not contested:
        return
    tracker = _look_again(context, contested[:PROBLEMS_PER_KIND])
    for number, (first, end) in enumerate(contested):
        text = blocks_text(first, end)
        if number < PROBLEMS_PER_KIND:
            owners = tracker.owners_of(first, end)
            text += f": claimed {'by' if len(owners) > 1 else 'twice by'} {', '.join(owners[:_OWNERS_NAMED])}"
            text += ", ..." if len(owners) > _OWNERS_NAMED else ""
        context.findings.add(catalogue.BLOCK_SHARED, text, block=first, length=end - first)


def _joined(runs: list[Run]) -> list[Run]:
    """The same blocks in disjoint runs, ascending."""
    joined: list[Run] = []
    for first, end in sorted(runs):
        if joined and first < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return joined


def _look_again(context: Context, contested: list[Run]) -> OwnerTracker:
    """Repeat the passes that claim blocks, in the same order; what else they find is known already."""
    superblock = context.superblock
    tracker = OwnerTracker(superblock.blocks, contested)
    again = Context(context.device, superblock, Findings(), tracker)
    again.reader.overlay = context.reader.overlay
    claim_fixed_areas(again)
    claim_spares(again)
    inode_file = read_inode_file(again)
    if inode_file is not None:
        check_directories(again, check_table(again, inode_file))
    return tracker
