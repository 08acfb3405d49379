"""The in-core inode cache: lookup counts, references, the LRU list of idle inodes, and the shrinker.

**Invariants**
- `table` holds every in-core inode that is not FREED, by number.
- LIVE exactly when `active` > 0; IDLE exactly when on `lru`. Every change of state goes through `move`, which counts
  the inodes in each state: statistics of a million inodes take no longer than those of one.
- Everything is synchronous. An inode that needs inactivation is *returned* to the caller (by the shrinker: in `due`),
  and the evict policy disposes of it; nothing in this module can wait.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from deferfs.limits import INODE_COST_BYTES, ORPHAN_BLOCKS_MAX
from deferfs.reclaim.debts import TimeDebts
from deferfs.reclaim.inode import ActiveReference, InCoreInode, PassiveReference
from deferfs.reclaim.states import State

_LOOKS_FACTOR = 4
"""Inodes looked at for each one wanted: most may be open, idle or waiting for their inactivation."""
_USED_AGAIN = 2
"""`InCoreInode.uses` of one that is spared: a file that is read once, as a scan does, is opened once."""
_SLOTS = 64
"""Default size of the debt table, for a cache created without one."""


def _nothing(ino: int) -> None:
    """Default of `on_freed`."""


@dataclass(frozen=True, slots=True)
class InodeStatistics:
    """Gauges by state, and totals since mount."""

    cached: int
    active: int
    idle: int
    queued: int
    inactivating: int
    quarantined: int
    pending_blocks: int
    inactivated_total: int
    cancelled_total: int
    anomalies: dict[str, int] = field(default_factory=dict)


class InodeCache:
    """In-core inodes by number."""

    def __init__(self, debts: TimeDebts | None = None) -> None:
        self.debts = TimeDebts(_SLOTS) if debts is None else debts
        """Access times owed by linked inodes that have left core."""
        self.table: dict[int, InCoreInode] = {}
        self.highest = 0
        """High-water mark of in-core inodes."""
        self.lru: OrderedDict[int, InCoreInode] = OrderedDict()
        self._in_state = dict.fromkeys(State, 0)
        """Inodes in `table` by state."""
        self.on_freed: Callable[[int], None] = _nothing
        """Called with the number of each inode that leaves the table."""
        self.pending_blocks = 0
        """Blocks that queued and running inactivations of orphans will free."""
        self.held_orphans = 0
        """Unlinked inodes that still have an active reference."""
        self.inactivated_total = 0
        """Inactivations completed, by workers or inline."""
        self.cancelled_total = 0
        self.anomalies: Counter[str] = Counter()
        """Malformed traffic: forgets of unknown inodes, more forgets than lookups."""
        self.without_inode: dict[int, int] = {}
        """By number, FORGETs to come for directory entries that were listed without a usable inode."""

    @property
    def bytes(self) -> int:
        """Estimated resident bytes."""
        return len(self.table) * INODE_COST_BYTES

    def move(self, inode: InCoreInode, state: State) -> None:
        """Change the state of an inode in `table`. AssertionError as `InCoreInode.move`."""
        before = inode.state
        inode.move(state)
        self._in_state[before] -= 1
        self._in_state[state] += 1

    # --- active references ---
    def _activate(self, ino: int, generation: int) -> InCoreInode:
        inode = self.table.get(ino)
        if inode is None:
            inode = self._new(ino, generation)
        elif inode.state is State.IDLE:
            del self.lru[ino]
        elif inode.state in (State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING):
            # O(1) cancel: the queue keeps the object under its passive reference and skips it later
            self.cancelled_total += 1
            if inode.waiting and inode.queue is not None:
                inode.queue.leave(inode)
            self._unpend(inode)
        return inode

    def _new(self, ino: int, generation: int) -> InCoreInode:
        inode = self.table[ino] = InCoreInode(ino, generation)
        self._in_state[State.NEW] += 1
        inode.passive += 1
        inode.lazy_atime = self.debts.take(ino, generation)
        if len(self.table) > self.highest:
            self.highest = len(self.table)
        return inode

    def _live(self, inode: InCoreInode) -> None:
        if inode.state is not State.LIVE:
            self.move(inode, State.LIVE)
            self.held_orphans += inode.orphan

    def lookup(self, ino: int, generation: int, count: int = 1) -> InCoreInode:
        """Count `count` lookups of an inode that is being returned to the kernel."""
        inode = self.table.get(ino)
        if inode is not None and inode.state is State.LIVE:
            inode.lookups += count
            return inode
        inode = self._activate(ino, generation)
        inode.lookups += count
        self._live(inode)
        return inode

    def hold(self, ino: int, generation: int) -> ActiveReference:
        """An active reference for an open handle or an operation in flight."""
        inode = self._activate(ino, generation)
        inode.active_tokens += 1
        if inode.uses < _USED_AGAIN:
            inode.uses += 1
        self._live(inode)
        return ActiveReference(self, inode)

    def try_activate(self, inode: InCoreInode) -> ActiveReference | None:
        """Take an active reference, unless the inode is an orphan without one, or being freed (None)."""
        if inode.state is not State.LIVE and (inode.orphan or inode.state in (State.RECLAIMABLE, State.FREED)):
            return None
        return self.hold(inode.ino, inode.generation)

    def forget(self, ino: int, count: int) -> InCoreInode | None:
        """The kernel dropped `count` lookups. Returns the inode when it must now be inactivated."""
        if self.without_inode:
            count -= self._forget_without_inode(ino, count)
            if not count:
                return None
        inode = self.table.get(ino)
        if inode is None:
            self.anomalies["forget_unknown"] += 1
            return None
        if count > inode.lookups:
            self.anomalies["forget_excess"] += 1
            count = inode.lookups
            if not count:
                return None
        return self.deactivate(inode, lookups=count)

    def listed_without_inode(self, ino: int) -> None:
        """A directory entry whose inode cannot be used was listed; the kernel will send one FORGET for it.

        It is counted apart from lookups of an inode that gets the number later. The order of the FORGETs does not
        matter: the sum is right, and no inode is released early.
        """
        if ino:
            self.without_inode[ino] = self.without_inode.get(ino, 0) + 1

    def _forget_without_inode(self, ino: int, count: int) -> int:
        """How many of `count` FORGETs are for entries without a usable inode."""
        known = self.without_inode.get(ino, 0)
        if known > count:
            self.without_inode[ino] = known - count
        elif known:
            del self.without_inode[ino]
        return min(known, count)

    def deactivate(self, inode: InCoreInode, *, lookups: int = 0, tokens: int = 0) -> InCoreInode | None:
        """Drop active references. Returns the inode when it must now be inactivated, else None."""
        inode.lookups -= lookups
        inode.active_tokens -= tokens
        assert inode.lookups >= 0 and inode.active_tokens >= 0
        if inode.active:
            return None
        if inode.orphan:
            self.held_orphans -= 1
            self.move(inode, State.NEED_INACTIVE)
            self.pending_blocks += inode.pending_blocks
            return inode
        self.move(inode, State.IDLE)
        self.lru[inode.ino] = inode
        return None

    # --- passive references ---
    def passive(self, inode: InCoreInode) -> PassiveReference:
        inode.passive += 1
        return PassiveReference(self, inode)

    def put_passive(self, inode: InCoreInode) -> None:
        inode.passive -= 1
        assert inode.passive >= 0
        if not inode.passive:
            self._gone(inode)

    # --- notifications from operations ---
    def orphaned(
        self, ino: int, generation: int, blocks: int, extents: int = 0, *, slot: int = -1, parent: int = 0
    ) -> InCoreInode | None:
        """The inode lost its last name, in directory `parent`; it holds `blocks` in about `extents` extents; `slot` is
        its slot in the orphan table. Returns it when it has no active reference and must be inactivated at once."""
        inode = self.table.get(ino)
        if inode is None:
            inode = self._new(ino, generation)
        elif inode.state is State.IDLE:
            del self.lru[ino]
        waiting = inode.queue if inode.waiting else None
        if waiting is not None:
            waiting.leave(inode)
        inode.orphan = True
        inode.slot = slot
        blocks = min(blocks, ORPHAN_BLOCKS_MAX)
        inode.pending_blocks = blocks
        inode.pending_extents = min(extents, ORPHAN_BLOCKS_MAX)
        self._descend(inode, parent)
        if waiting is not None:
            waiting.enter(inode)
        if inode.active:
            self.held_orphans += 1
            return None
        self.pending_blocks += blocks
        if inode.state in (State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING):
            return None
        self.move(inode, State.NEED_INACTIVE)
        return inode

    def _descend(self, inode: InCoreInode, parent: int) -> None:
        """Remember the parent, under a passive reference, so that a flush below a directory finds the orphan."""
        above = self.table.get(parent)
        if above is not None and inode.parent is None:
            inode.parent = above
            above.passive += 1

    def orphan_holds(self, ino: int, blocks: int) -> None:
        """An open orphan was written to or truncated: it now holds `blocks`."""
        inode = self.table.get(ino)
        if inode is not None and inode.orphan and inode.state is State.LIVE:
            inode.pending_blocks = min(blocks, ORPHAN_BLOCKS_MAX)

    def unpaid(self, ino: int, generation: int) -> InCoreInode:
        """Bring back into core an inode whose debt could not be written with its table block, to be inactivated."""
        inode = self._new(ino, generation)
        self.move(inode, State.NEED_INACTIVE)
        return inode

    # --- orphans that only the orphan table records ---
    def leave_to_table(self, inode: InCoreInode) -> None:
        """Evict a due orphan: its slot in the orphan table has all that is needed. Its blocks stay pending."""
        self.move(inode, State.RECLAIMABLE)
        self._free(inode)

    def reload(self, ino: int, generation: int, slot: int, blocks: int) -> InCoreInode:
        """Bring back an orphan evicted by `leave_to_table`, due for cleanup; its `blocks` are pending already."""
        inode = self._new(ino, generation)
        inode.orphan = inode.reloaded = True
        inode.slot = slot
        inode.pending_blocks = min(blocks, ORPHAN_BLOCKS_MAX)
        self.move(inode, State.NEED_INACTIVE)
        return inode

    # --- called by the inactivation ---
    def begin(self, inode: InCoreInode) -> bool:
        """Start inactivating; False when the inode has become live again."""
        if inode.state not in (State.NEED_INACTIVE, State.QUEUED):
            return False
        if inode.waiting and inode.queue is not None:
            inode.queue.leave(inode)  # it became live and due again after it was taken, and was queued a second time
        self.move(inode, State.INACTIVATING)
        return True

    def retry(self, inode: InCoreInode) -> bool:
        """The attempt failed: due again. False when the inode is live again."""
        if inode.state is not State.INACTIVATING:
            return False
        inode.failures += 1
        self.move(inode, State.NEED_INACTIVE)
        return True

    def interrupt(self, inode: InCoreInode) -> bool:
        """The inactivation was stopped between two transactions: due again. False when the inode is live again."""
        if inode.state is not State.INACTIVATING:
            return False
        self.move(inode, State.NEED_INACTIVE)
        return True

    def quarantine(self, inode: InCoreInode) -> None:
        self._unpend(inode)
        self.move(inode, State.QUARANTINED)

    def readmit(self, inode: InCoreInode) -> None:
        """Take out of quarantine, due for another attempt."""
        inode.failures = 0
        self.move(inode, State.NEED_INACTIVE)
        if inode.orphan:
            self.pending_blocks += inode.pending_blocks

    def finish(self, inode: InCoreInode) -> None:
        """Inactivation is done: free the in-core inode unless it has been looked up meanwhile."""
        if inode.state is State.INACTIVATING:
            self._unpend(inode)
            self.move(inode, State.RECLAIMABLE)
            self._free(inode)
            self.inactivated_total += 1

    def freed(self, inode: InCoreInode, blocks: int) -> None:
        """A step of the inactivation has freed `blocks`: they are no longer pending."""
        blocks = min(blocks, inode.pending_blocks)
        inode.pending_blocks -= blocks
        self.pending_blocks -= blocks

    def _unpend(self, inode: InCoreInode) -> None:
        if inode.orphan:
            self.pending_blocks -= inode.pending_blocks

    def _free(self, inode: InCoreInode) -> None:
        self.move(inode, State.FREED)
        self._in_state[State.FREED] = 0
        del self.table[inode.ino]
        self.on_freed(inode.ino)
        inode.passive -= 2
        self._gone(inode)

    def _gone(self, inode: InCoreInode) -> None:
        """Drop the reference of an unreferenced freed inode to its parent directory, which may be freed in turn. Until
        then `parent` chains lead from orphans to all deleted directories above them."""
        while not inode.passive and inode.state is State.FREED:
            above, inode.parent = inode.parent, None
            if above is None:
                return
            above.passive -= 1
            inode = above

    # --- the shrinker ---
    def shrink(self, wanted_bytes: int, due_max: int, *, defer: bool = False) -> tuple[int, list[InCoreInode]]:
        """Evict idle inodes, coldest first, until `wanted_bytes` are free or `due_max` of them need inactivation.
        Returns bytes freed, and the latter, in state NEED_INACTIVE, for the policy.

        With `defer`, inodes that owe only an access time leave it in `debts` and are freed; when `debts` is full they
        stay idle.
        """
        freed = 0
        due: list[InCoreInode] = []
        while self.lru and freed < wanted_bytes and len(due) < due_max:
            _, inode = self.lru.popitem(last=False)
            if defer and inode.lazy_atime and not inode.orphan and not inode.preallocated:
                if not self.debts.add(inode.ino, inode.generation, inode.lazy_atime):
                    self.lru[inode.ino] = inode
                    self.lru.move_to_end(inode.ino, last=False)
                    break
                inode.lazy_atime = 0
            if inode.needs_inactivation:
                self.move(inode, State.NEED_INACTIVE)
                due.append(inode)
            else:
                self.move(inode, State.RECLAIMABLE)
                self._free(inode)
                freed += INODE_COST_BYTES
        return freed, due

    def drop_all(self) -> list[InCoreInode]:
        """Unmount sends no FORGETs: drop every count, and evict as `evict_idle` does. Returns the inodes to
        inactivate."""
        self.without_inode.clear()
        due: list[InCoreInode] = []
        for inode in list(self.table.values()):
            if inode.active:
                found = self.deactivate(inode, lookups=inode.lookups, tokens=inode.active_tokens)
                if found is not None:
                    due.append(found)
        return due + self.evict_idle()

    def evict_idle(self) -> list[InCoreInode]:
        """Evict all idle inodes, leaving in `debts` what they owe. When that is full, the rest stays idle until it has
        been paid, unless it refuses though nothing is in it. Returns the inodes to inactivate."""
        due = self.shrink(1 << 62, 1 << 62, defer=True)[1]
        if self.lru and not self.debts.count:
            due += self.shrink(1 << 62, 1 << 62)[1]
        return due

    def debtors_among(self, first: int, count: int) -> list[InCoreInode]:
        """Those of the `count` inodes from `first` on that are in core and owe an access time, except orphans."""
        found = [self.table[ino] for ino in range(first, first + count) if ino in self.table]
        return [inode for inode in found if inode.lazy_atime and not inode.orphan]

    def droppable(self, count: int) -> list[int]:
        """Up to `count` linked inodes that only the kernel refers to, those in core for longest. They and those passed
        over move behind all others, so that each gets its turn. One that was opened again since it came into core, or
        since its last turn, is spared once (the second chance of the CLOCK algorithm), unless all are.
        """
        found: list[int] = []
        spared: list[int] = []
        for ino, inode in list(islice(self.table.items(), _LOOKS_FACTOR * count)):
            if len(found) == count:
                break
            self.table[ino] = self.table.pop(ino)
            if inode.state is not State.LIVE or inode.active_tokens or inode.orphan:
                continue
            if inode.uses < _USED_AGAIN:
                found.append(ino)
            else:
                inode.uses = 1
                spared.append(ino)
        return found or spared[:count]

    def statistics(self) -> InodeStatistics:
        states = self._in_state
        return InodeStatistics(
            len(self.table),
            states[State.LIVE],
            states[State.IDLE],
            states[State.QUEUED] + states[State.NEED_INACTIVE],
            states[State.INACTIVATING],
            states[State.QUARANTINED],
            self.pending_blocks,
            self.inactivated_total,
            self.cancelled_total,
            dict(self.anomalies),
        )
