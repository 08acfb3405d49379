"""Orphans that wait in the orphan table alone, in every order of deferral, look-up, reload, eviction and remount."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.volume import attributes, namespace
from deferfs.volume.attributes import statfs
from deferfs.volume.new_inode import NewInode
from tests.examples import examples
from tests.unit.volumes import FILE, ROOT, assert_sound, fresh_driver, reopened

FILES = 75
"""In an orphan table of 31 slots a block: more than two blocks."""
numbers = st.integers(0, 1000)


class Spilling(RuleBasedStateMachine):
    """Each rule does what a request, a worker or the memory reclaimer does; the invariant compares with the table."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = fresh_driver()
        self.made = 0
        self.linked: list[tuple[bytes, int]] = []
        self.held: list[int] = []
        """Inodes that the kernel knows, some of them without a name, by one look-up each."""
        self.free_at_start = statfs(self.driver.volume).free

    @initialize(bound=st.integers(0, 5))
    def begin(self, bound: int) -> None:
        self.driver.volume.gc.in_core_max = bound
        for _ in range(FILES):
            self._create()

    def _create(self) -> None:
        name = b"f%d" % self.made
        self.made += 1
        record = self.driver.run(namespace.create, self.driver.volume, ROOT, name, NewInode(FILE))
        self.linked.append((name, record.ino))
        if self.made % 3:
            self.driver.write(record.ino, 0, bytes(1000 * (self.made % 7)))

    def _orphans(self) -> dict[int, tuple[int, int]]:
        """Every used slot: inode -> (block of the table, blocks held)."""
        table = self.driver.volume.store.orphans
        return {
            slot.ino: (number, slot.blocks)
            for number in range(len(table.used))
            for slot in self.driver.run(table.slots, number)
            if slot.ino
        }

    # --- requests ---
    @rule(first=numbers, count=st.integers(1, 40), known=st.booleans())
    @precondition(lambda self: self.linked)
    def unlink(self, first: int, count: int, known: bool) -> None:
        """Delete files without references, or known to the kernel: deferred by the unlink, or by a later FORGET."""
        for _ in range(min(count, len(self.linked))):
            name, ino = self.linked.pop(first % len(self.linked))
            if known:
                self._look_up(ino)
            self.driver.run(namespace.unlink, self.driver.volume, ROOT, name)

    def _look_up(self, ino: int) -> None:
        self.driver.volume.lookup_count(self.driver.run(attributes.getattr, self.driver.volume, ino))
        self.held.append(ino)

    @rule(chosen=numbers)
    @precondition(lambda self: self.driver.volume.spill.count)
    def look_up_by_handle(self, chosen: int) -> None:
        """open_by_handle_at(2): an orphan that waits comes back to life, from wherever it waits."""
        waiting = sorted(set(self._orphans()) - set(self.held))
        self._look_up(waiting[chosen % len(waiting)])

    @rule(chosen=numbers, size=st.integers(0, 9000))
    @precondition(lambda self: self.held)
    def write(self, chosen: int, size: int) -> None:
        ino = self.held[chosen % len(self.held)]
        self.driver.truncate(ino, size // 2)
        self.driver.write(ino, size // 2, bytes(size))

    @rule(chosen=numbers)
    @precondition(lambda self: self.held)
    def hold_and_release(self, chosen: int) -> None:
        record = self.driver.run(attributes.getattr, self.driver.volume, self.held[chosen % len(self.held)])
        reference = self.driver.volume.hold(record)
        assert reference.release() is None

    @rule(count=st.integers(1, 40))
    def forget(self, count: int) -> None:
        for _ in range(min(count, len(self.held))):
            self.driver.forget(self.held.pop(), 1)

    @rule()
    def create(self) -> None:
        self._create()

    # --- inodegc and reclaim ---
    @rule(bound=st.integers(0, 40))
    def tune(self, bound: int) -> None:
        self.driver.volume.gc.in_core_max = bound

    @rule(count=st.integers(1, 70))
    def reload(self, count: int) -> None:
        self.driver.reload(count)

    @rule(count=st.integers(1, 50))
    def collect(self, count: int) -> None:
        self.driver.collect(count)

    @rule(blocks=st.integers(1, 60))
    def hasten_space(self, blocks: int) -> None:
        """What is taken next holds that much, or all that there is."""
        volume, before = self.driver.volume, self.driver.volume.inodes.pending_blocks
        promised = volume.gc.hasten_space(blocks)
        assert promised <= before
        assert promised >= min(blocks, before - self._delayed_blocks())

    def _delayed_blocks(self) -> int:
        return sum(inode.pending_blocks for _, _, inode in self.driver.volume.gc.delayed)

    @rule()
    def fail_one(self) -> None:
        """An inactivation meets an IO error: what failed stays in core."""
        gc = self.driver.volume.gc
        for inode in gc.take(1):
            if gc.cache.begin(inode):
                gc.failed(inode)
            else:
                gc.done(inode)

    @rule()
    def retry(self) -> None:
        self.driver.volume.gc.retry_now()

    @rule()
    def quarantine_released(self) -> None:
        self.driver.volume.gc.release_quarantine()

    @rule()
    def evict_blocks(self) -> None:
        """Blocks of the orphan table leave the cache as others do."""
        self.driver.commit()
        self.driver.checkpoint()
        self.driver.volume.store.cache.shrink(1 << 40)

    @rule(count=st.integers(1, 5))
    def workers(self, count: int) -> None:
        self.driver.volume.gc.resize(count)

    @rule()
    def crash(self) -> None:
        """After a commit, so that the model knows what is left; the kernel's look-ups are gone."""
        self.driver.commit()
        bound = self.driver.volume.gc.in_core_max
        self.driver = reopened(self.driver)
        self.driver.volume.gc.in_core_max = bound
        self.held.clear()

    # --- what must hold ---
    @invariant()
    def everything_waits_in_one_place(self) -> None:
        volume = self.driver.volume
        orphans, table = self._orphans(), volume.inodes.table
        away = {ino: where for ino, where in orphans.items() if ino not in table}
        assert volume.spill.count == len(away)
        for number in range(len(volume.store.orphans.used)):
            assert volume.spill.waits_in(number) == sum(1 for at, _ in away.values() if at == number)
        idle = {ino for ino in orphans if ino not in table or self._pends(table[ino])}
        assert volume.inodes.pending_blocks == sum(orphans[ino][1] for ino in idle)
        gc = volume.gc
        live = sum(not self._pends(inode) for inode in [*gc.urgent, *(inode for _, _, inode in gc.delayed)])
        assert gc.backlog == len(idle) + live  # those are dropped when their turn comes
        assert bool(volume.spill.count) == (volume.spill.upcoming() >= 0) == (volume.spill.oldest_ns() > 0)
        if not volume.spill.count:
            assert (volume.spill.extents, volume.spill.blocks) == (0, 0)
        assert not set(self.held) - set(table)

    def _pends(self, inode: InCoreInode) -> bool:
        return inode.orphan and inode.state in (State.QUEUED, State.NEED_INACTIVE, State.INACTIVATING)

    def teardown(self) -> None:
        """Everything is let go and deleted: all of the space comes back, and statfs has promised it."""
        volume = self.driver.volume
        while self.held:
            self.driver.forget(self.held.pop(), 1)
        for name, _ in self.linked:
            self.driver.run(namespace.unlink, volume, ROOT, name)
        promised = statfs(volume).free
        volume.gc.release_quarantine()
        volume.gc.retry_now()
        self.driver.collect()
        self.driver.commit()
        assert volume.store.orphans.count == 0
        assert (volume.spill.count, volume.inodes.pending_blocks) == (0, 0)
        assert promised <= statfs(volume).free
        assert_sound(self.driver)


Spilling.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=40)
TestSpilling = Spilling.TestCase
