"""The in-core inodes under random traffic: lookups, forgets, handles, unlinks, shrinkers, workers, both policies."""

from __future__ import annotations

import itertools
from typing import TypeVar, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import ActiveReference, InCoreInode, PassiveReference
from deferfs.reclaim.policy import EvictPolicy, make_policy
from deferfs.reclaim.states import State
from tests.examples import examples

inos = st.integers(8, 13)
T = TypeVar("T")


def drawn(*found: T) -> T:
    """What a rule adds to its bundle: any number of things (hypothesis types only the case of one)."""
    return cast(T, multiple(*found))


class Reclaim(RuleBasedStateMachine):
    """`linked` and `generations` stand for the disk: which numbers are in use, and how often each was made.

    The rules keep to what the volume guarantees: only a linked inode is looked up, an orphan's number is made anew only
    after its inactivation.
    """

    handles = Bundle("handles")
    passives = Bundle("passives")
    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.cache = InodeCache()
        self.gc = InodeGc(self.cache, itertools.count(1).__next__)
        self.policy: EvictPolicy = make_policy("deferred", self.gc)
        self.linked: dict[int, int] = {}
        self.orphans: dict[int, int] = {}
        self.generations = itertools.count(1)
        self.lookups: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.freed: list[tuple[int, int]] = []
        self.stalled: list[InCoreInode] = []

    # --- references ---
    def active(self, ino: int) -> int:
        return self.lookups.get(ino, 0) + self.tokens.get(ino, 0)

    def dispose(self, inode: InCoreInode | None) -> None:
        for due in self.policy.dispose([] if inode is None else [inode]):
            self.inactivate(due)

    def inactivate(self, inode: InCoreInode) -> None:
        """All steps at once, as the plain driver does it."""
        if self.cache.begin(inode):
            self.last_step(inode)

    def last_step(self, inode: InCoreInode) -> None:
        if inode.state is State.INACTIVATING:
            assert not self.active(inode.ino), "inactivated while active"
            if inode.orphan:
                assert self.orphans.pop(inode.ino) == inode.generation
                self.freed.append((inode.ino, inode.generation))
            else:
                inode.preallocated = False
                inode.lazy_atime = 0
        self.cache.finish(inode)

    # --- operations ---
    @rule(ino=inos)
    def create(self, ino: int) -> None:
        if ino not in self.linked and ino not in self.orphans:
            self.linked[ino] = next(self.generations)

    @rule(ino=inos, count=st.integers(1, 3))
    def lookup(self, ino: int, count: int) -> None:
        if ino in self.linked:
            inode = self.cache.lookup(ino, self.linked[ino], count)
            assert inode.generation == self.linked[ino]
            self.lookups[ino] = self.lookups.get(ino, 0) + count

    @rule(ino=inos, count=st.integers(1, 9))
    def forget(self, ino: int, count: int) -> None:
        count = min(count, self.lookups.get(ino, 0))
        if count:
            self.lookups[ino] -= count
            self.dispose(self.cache.forget(ino, count))

    @rule(target=handles, ino=inos)
    def open(self, ino: int) -> ActiveReference:
        if not self.active(ino):
            return drawn()
        self.tokens[ino] = self.tokens.get(ino, 0) + 1
        return self.cache.hold(ino, self.cache.table[ino].generation)

    @rule(handle=consumes(handles))
    def close(self, handle: ActiveReference) -> None:
        self.tokens[handle.inode.ino] -= 1
        self.dispose(handle.release())

    @rule(ino=inos, blocks=st.integers(0, 9))
    def unlink(self, ino: int, blocks: int) -> None:
        if ino in self.linked:
            self.orphans[ino] = self.linked.pop(ino)
            self.dispose(self.cache.orphaned(ino, self.orphans[ino], blocks))

    @rule(ino=inos, lazily=st.booleans())
    def dirty(self, ino: int, lazily: bool) -> None:
        inode = self.cache.table.get(ino)
        if inode is not None and self.active(ino):
            if lazily:
                inode.lazy_atime = 5
            else:
                inode.preallocated = True

    @rule(wanted=st.integers(1, 2000), due_max=st.integers(1, 3))
    def direct_reclaim(self, wanted: int, due_max: int) -> None:
        for due in self.cache.shrink(wanted, due_max)[1]:
            self.dispose(due)

    @rule(name=st.sampled_from(["inline", "deferred"]))
    def switch(self, name: str) -> None:
        self.policy = make_policy(name, self.gc)

    # --- passive references ---
    @rule(target=passives, ino=inos)
    def watch(self, ino: int) -> PassiveReference:
        inode = self.cache.table.get(ino)
        if inode is None:
            return drawn()
        return self.cache.passive(inode)

    @rule(target=handles, passive=passives)
    def activate(self, passive: PassiveReference) -> ActiveReference:
        reference = passive.try_activate()
        if reference is None:
            assert not self.active(passive.ino) or self.cache.table[passive.ino].generation != passive.generation
            return drawn()
        assert reference.inode.generation == passive.generation
        self.tokens[passive.ino] = self.tokens.get(passive.ino, 0) + 1
        return reference

    @rule(passive=consumes(passives))
    def unwatch(self, passive: PassiveReference) -> None:
        passive.release()

    # --- inodegc, one step at a time ---
    @rule(target=taken, count=st.integers(1, 4))
    def take(self, count: int) -> InCoreInode:
        batch = self.gc.take(count)
        assert [inode.ino for inode in batch] == sorted(inode.ino for inode in batch)
        return drawn(*batch)

    @rule(inode=taken)
    def begin(self, inode: InCoreInode) -> None:
        if inode.state is State.QUEUED and not inode.waiting:
            assert self.cache.begin(inode)

    @rule(inode=consumes(taken), fails=st.booleans())
    def finish(self, inode: InCoreInode, fails: bool) -> None:
        if not inode.waiting and inode.state is State.QUEUED:
            self.cache.begin(inode)
        if fails:
            self.gc.failed(inode)
            if inode.state is State.QUARANTINED:
                self.stalled.append(inode)
            return
        self.last_step(inode)
        self.gc.done(inode)

    @rule(count=st.integers(1, 5))
    def resize(self, count: int) -> None:
        self.gc.resize(count)

    @rule(blocks=st.integers(1, 20))
    def hasten(self, blocks: int) -> None:
        self.gc.hasten_space(blocks)

    @rule()
    def retry(self) -> None:
        self.gc.retry_now()

    # --- what must always hold ---
    @invariant()
    def counts_agree(self) -> None:
        for ino in range(8, 14):
            inode = self.cache.table.get(ino)
            active = inode.active if inode is not None else 0
            assert active == self.active(ino)
            if inode is not None:
                assert (inode.state is State.LIVE) == (active > 0)
                assert (inode.state is State.IDLE) == (ino in self.cache.lru)
                assert inode.state is not State.FREED
                assert inode.generation == self.linked.get(ino, self.orphans.get(ino))
                assert inode.orphan == (ino in self.orphans)

    @invariant()
    def pending_is_what_due_orphans_hold(self) -> None:
        due = (State.NEED_INACTIVE, State.QUEUED, State.INACTIVATING)
        expected = sum(i.pending_blocks for i in self.cache.table.values() if i.orphan and i.state in due)
        assert self.cache.pending_blocks == expected

    @invariant()
    def every_orphan_nobody_holds_is_on_its_way(self) -> None:
        for ino in self.orphans:
            if not self.active(ino):
                inode = self.cache.table[ino]
                delayed = any(found is inode for _, _, found in self.gc.delayed)
                assert delayed or inode.state in (State.QUEUED, State.INACTIVATING, State.QUARANTINED)

    @invariant()
    def the_queues_are_sound(self) -> None:
        waiting = 0
        for queue in self.gc.queues:
            seen = []
            inode, tail = queue.head, None
            while inode is not None:
                assert inode.queue is queue
                seen.append(inode)
                tail, inode = inode, inode.following
            assert queue.tail is tail
            assert len(seen) == len(set(map(id, seen)))
            in_line = [inode for inode in seen if inode.waiting]
            assert all(inode.state is State.QUEUED for inode in in_line)
            assert queue.depth == len(in_line)
            assert queue.blocks == sum(inode.pending_blocks for inode in in_line)
            waiting += len(in_line)
        assert self.gc.queued == waiting + len(self.gc.urgent)

    def teardown(self) -> None:
        """Unmount: every inode is freed exactly once, and all counts return to zero."""
        for inode in self.cache.drop_all():
            self.gc.enqueue(inode)
        self.lookups.clear()
        self.tokens.clear()
        for inode in list(self.cache.table.values()):
            if inode.state is State.INACTIVATING:
                self.last_step(inode)
        self.gc.retry_now()
        while batch := self.gc.take(9):
            for inode in batch:
                if self.cache.begin(inode):
                    self.last_step(inode)
                self.gc.done(inode)
        left = list(self.cache.table.values())
        assert all(inode.state in (State.QUARANTINED, State.QUEUED) for inode in left)
        assert set(self.orphans) == {inode.ino for inode in left if inode.orphan}
        assert len(set(self.freed)) == len(self.freed), "freed twice"
        assert not self.cache.lru
        assert self.gc.queued == 0


Reclaim.TestCase.settings = settings(max_examples=examples(80), stateful_step_count=40)
TestReclaim = Reclaim.TestCase
