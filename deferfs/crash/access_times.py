"""The access times that processes see, as if each were written at once.

The model of lazy access times. A record written to disk has either its old time or the one last returned to a process,
never a third one.
"""

from __future__ import annotations

from deferfs.crash.model import Node
from deferfs.ondisk.inode import Inode, InodeBlock
from deferfs.store.plan import Plan


def changed_records(plan: Plan) -> dict[int, Inode]:
    """The records that a plan has changed. Those that it has left sealed are decoded aside, and stay sealed."""
    table, changed = plan.store.inodes, dict[int, Inode]()
    for ino in plan.raised:
        address, slot = table.locate(plan, ino)
        found = plan.get(address, InodeBlock).records[slot]
        changed[ino] = Inode.decode(plan.store.fmt, address, found) if isinstance(found, bytes) else found
    return changed | plan.inodes


class AccessTimes:
    """Times that inodes owe. The model has no in-core inodes and no table of debts."""

    def __init__(self) -> None:
        self.owed: dict[int, int] = {}
        """Inode -> the access time (ns) returned to processes, while its record has an older one."""
        self._set: dict[int, int] = {}
        """Inode -> the access time that the current operation sets."""

    def accessed(self, ino: int, recorded: int, now: int) -> None:
        """The inode was read at `now`. A time in the future stays."""
        time = max(recorded, self.owed.get(ino, 0), now)
        if time > recorded:
            self.owed[ino] = time

    def set(self, ino: int, atime: int) -> None:
        """utimens(2): a debt is void."""
        self._set[ino] = atime

    def drop(self, ino: int) -> None:
        """The inode is gone, and its debt."""
        self.owed.pop(ino, None)

    def recorded(self, ino: int, before: Node | None, record: Inode) -> str:
        """Check the inode's new `record` against the one `before` the operation (None: a new inode). Returns what is
        wrong; empty when nothing is.
        """
        found = record.atime
        if before is None:
            self.owed.pop(ino, None)
            return "" if found == record.crtime else f"inode {ino} begins with the access time of another, {found}"
        if before.generation != record.generation:
            return f"inode {ino}: generation {record.generation} instead of {before.generation}"
        if ino in self._set:
            self.owed.pop(ino, None)
            wanted = self._set.pop(ino)
            return "" if found == wanted else f"inode {ino}: access time {found} where {wanted} was set"
        old, owed = before.times[0], self.owed.get(ino)
        if owed is not None and found == owed:
            del self.owed[ino]
        elif found != old:
            return f"inode {ino}: access time {found}, neither the older {old} nor {owed}, which is owed"
        return ""
