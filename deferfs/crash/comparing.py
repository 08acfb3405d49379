"""What must hold of a twin while nothing is under way: its volume equals its model, and its counts add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.crash.model import differences
from deferfs.crash.tree import check_contents, read_tree
from deferfs.crash.twin_error import TwinError
from deferfs.volume import attributes, orphans

if TYPE_CHECKING:
    from deferfs.crash.twin import Twin


def verify(twin: Twin) -> None:
    """Compare everything. TwinError for a difference, AssertionError when free space does not add up."""
    volume, journal, cleanup = twin.volume, twin.volume.store.journal, twin.driver.engine.cleanup
    if journal.granted_credits or journal.grants or cleanup.busy or twin.held:
        raise TwinError("no operation runs, and log space or inodes are held for some")
    if (counted := orphans.pending_blocks(volume)) != volume.inodes.pending_blocks:
        raise TwinError(f"orphans hold {counted} blocks, and {volume.inodes.pending_blocks} are pending")
    volume.store.space.check()
    check_access_times(twin)
    lines = differences(read_tree(twin.driver), twin.model.nodes) + check_contents(twin.driver, twin.model.nodes)
    if lines:
        raise TwinError("volume and model differ: " + "; ".join(lines))


def check_access_times(twin: Twin) -> None:
    """Check the times that stat(2) returns before they are written, and that only owed ones are in the table.

    A deleted file that is not open cannot be stat'ed, and may lose the time it owes.
    """
    inodes, owed = twin.volume.inodes, twin.access_times.owed
    held = twin.lookups.keys() | {handle.inode.ino for handle in (*twin.handles, *twin.held)}
    for ino, time in sorted(owed.items()):
        if not twin.model.nodes[ino].nlink and ino not in held:
            continue
        found = attributes.atime_ns(twin.volume, twin.driver.run(attributes.getattr, twin.volume, ino))
        if found != time:
            raise TwinError(f"inode {ino}: stat gives the access time {found}, not {time}, which is owed")
    for ino in inodes.debts.debtors(0, inodes.debts.slots):
        if ino not in owed or ino in inodes.table:
            raise TwinError(
                f"inode {ino}: in the table of debts, but it {'is in core' if ino in owed else 'owes nothing'}"
            )
