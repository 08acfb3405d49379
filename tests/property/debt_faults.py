"""Planted faults of access times that are owed, and of blocks that leave memory when they are at home; see `faults`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from deferfs.errors import FsError
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.reclaim.cache import InodeCache
from deferfs.reclaim.debts import TimeDebts
from deferfs.reclaim.inode import InCoreInode
from deferfs.store import checkpoint
from deferfs.store.io import Flush, Job, Write
from deferfs.store.journal import Home, Journal
from deferfs.store.plan import Plan
from deferfs.volume import attributes
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.driver import Driver
from deferfs.volume.repayment import Repayment
from deferfs.volume.volume import Volume
from deferfs.volume.waits import Task
from tests.property.faults import fault, wrap_job
from tests.property.home_faults import FAULTS

__all__ = ["FAULTS"]

Debts = list[tuple[int, int, int]]

# --- the table of debts ---


@fault("debts_outlived")
def a_debt_outlives_its_inode(patch: pytest.MonkeyPatch) -> None:
    """A deletion leaves it in the table, and the number is all that counts."""
    orphaned, take = InodeCache.orphaned, TimeDebts.take

    def leave(cache: InodeCache, *args: Any, **kwargs: Any) -> InCoreInode | None:
        with pytest.MonkeyPatch.context() as meanwhile:
            meanwhile.setattr(TimeDebts, "take", lambda debts, ino, generation: 0)
            return orphaned(cache, *args, **kwargs)

    def any_generation(debts: TimeDebts, ino: int, generation: int) -> int:
        return take(debts, ino, debts._generations[debts._find(ino)]) if debts.count else 0

    patch.setattr(InodeCache, "orphaned", leave)
    patch.setattr(TimeDebts, "take", any_generation)


@fault("debts_refused")
def a_full_table_drops_debts(patch: pytest.MonkeyPatch) -> None:
    original = TimeDebts.add
    patch.setattr(TimeDebts, "add", lambda debts, *debt: original(debts, *debt) or True)


@fault("paid_together")
def a_look_up_drops_the_debt(patch: pytest.MonkeyPatch) -> None:
    original = TimeDebts.take

    def take(debts: TimeDebts, ino: int, generation: int) -> int:
        original(debts, ino, generation)
        return 0

    patch.setattr(TimeDebts, "take", take)


@fault("paid_together")
def a_look_up_leaves_the_debt(patch: pytest.MonkeyPatch) -> None:
    """It is owed twice: in core, where it may be void soon, and in the table."""
    patch.setattr(TimeDebts, "take", TimeDebts.look)


@fault("paid_together")
def what_is_in_core_is_settled_unwritten(patch: pytest.MonkeyPatch) -> None:
    """A payment takes it along, and forgets to."""

    def take_along(repayment: Repayment, plan: Plan, first: int) -> None:
        for ino in range(first, first + plan.store.fmt.inodes_per_block):
            inode = repayment._inodes.table.get(ino)
            if inode is not None:
                plan.on_apply.append(partial(inode.paid, inode.lazy_atime))

    patch.setattr(Repayment, "_take_along", take_along)


@fault("paid_together")
def times_are_owed_in_seconds(patch: pytest.MonkeyPatch) -> None:
    original = TimeDebts.add

    def add(debts: TimeDebts, ino: int, generation: int, atime_ns: int) -> bool:
        return original(debts, ino, generation, -(-atime_ns // 10**9) * 10**9)

    patch.setattr(TimeDebts, "add", add)


@fault("debts_refused")
def a_removal_leaves_a_gap(patch: pytest.MonkeyPatch) -> None:
    """What had to go past the freed first is not found any more."""

    def remove(debts: TimeDebts, slots: list[int]) -> None:
        for at in slots:
            debts._inos[at] = 0
            debts.count -= 1

    patch.setattr(TimeDebts, "_remove", remove)


@fault("paid_together")
def a_time_that_is_set_leaves_the_debt(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TimeDebts, "void", lambda debts, ino: None)


@fault("debts_outlived")
def a_read_turns_the_time_back(patch: pytest.MonkeyPatch) -> None:
    """After the clock was set back."""

    def accessed(volume: Volume, record: Any) -> bool:
        inode = volume.inodes.table.get(record.ino)
        if inode is not None:
            inode.lazy_atime = volume.store.clock()
        return inode is not None

    patch.setattr(attributes, "accessed", accessed)


# --- payments ---


@fault("paid_together")
def a_payment_skips_an_inode(patch: pytest.MonkeyPatch) -> None:
    """The first of those that owe to one block, if it is not alone."""
    original = TimeDebts.of_block

    def of_block(debts: TimeDebts, first: int, count: int) -> Debts:
        found = original(debts, first, count)
        return found[1:] if len(found) > 1 else found

    patch.setattr(TimeDebts, "of_block", of_block)


@fault("paid_together")
def a_payment_gives_inodes_each_others_times(patch: pytest.MonkeyPatch) -> None:
    original = TimeDebts.of_block

    def of_block(debts: TimeDebts, first: int, count: int) -> Debts:
        found = original(debts, first, count)
        return [(ino, generation, found[at - 1][2]) for at, (ino, generation, _) in enumerate(found)]

    patch.setattr(TimeDebts, "of_block", of_block)


@fault("debts_when_the_log_is_full")
def a_payment_is_settled_before_it_is_applied(patch: pytest.MonkeyPatch) -> None:
    """The plan may have to be made again."""
    patch.setattr(Repayment, "_settle", lambda repayment, plan, owed: repayment.debts.settle(owed))


@fault("paid_together")
def a_time_that_is_paid_is_hidden_from_fsync(patch: pytest.MonkeyPatch) -> None:
    """The transaction does not know that it has changed the inode."""
    original = Journal.join

    def join(journal: Journal, plan: Plan) -> int:
        raised = plan.raised
        plan.raised = set()
        tid = original(journal, plan)
        plan.raised = raised
        return tid

    patch.setattr(Journal, "join", join)


@fault("paid_together")
def debts_settled_along_with_a_change_are_not_written(patch: pytest.MonkeyPatch) -> None:
    """They are settled, and not written."""

    def go_along(repayment: Repayment, plan: Plan, first: int) -> None:
        repayment._settle(plan, repayment._owed(plan, first))

    patch.setattr(Repayment, "go_along", go_along)
    original = Driver.__init__

    def init(driver: Driver, device: Any, volume: Volume) -> None:
        original(driver, device, volume)
        volume.store.inodes.on_change = volume.repayment.go_along

    patch.setattr(Driver, "__init__", init)


@fault("debts_of_an_aborted_mount")
def a_payment_that_fails_is_settled(patch: pytest.MonkeyPatch) -> None:
    original = Repayment.pay

    def pay(repayment: Repayment, plan: Plan, first: int) -> None:
        owed = repayment._owed(plan, first)
        try:
            original(repayment, plan, first)
        except FsError:
            repayment.debts.settle(owed)
            raise

    patch.setattr(Repayment, "pay", pay)


@fault("debts_on_a_full_disk")
def a_payment_takes_space(patch: pytest.MonkeyPatch) -> None:
    original = Repayment.pay

    def pay(repayment: Repayment, plan: Plan, first: int) -> None:
        plan.reserve = False
        plan.allocate(0, 1)
        original(repayment, plan, first)

    patch.setattr(Repayment, "pay", pay)


@fault("paid_together")
def debts_are_not_paid_at_unmount(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cleanup, "owes", False)


@fault("paid_together")
def debts_are_paid_after_the_last_commit(patch: pytest.MonkeyPatch) -> None:
    """An unmount writes them into the cache, and no more."""
    original = Cleanup.flush

    def flush(cleanup: Cleanup, deadline_ns: float) -> Task[None]:
        yield from original(cleanup, deadline_ns)
        journal = cleanup._store.journal
        if not journal.running.empty:
            for address in journal.running.images:
                cleanup._store.cache.let_go(address)
            journal.running.images.clear()

    patch.setattr(Cleanup, "flush", flush)


# --- blocks that come home ---


def _home(patch: pytest.MonkeyPatch, write_home: Any) -> None:
    patch.setattr(checkpoint, "_write_home", write_home)


@fault("evicted_on_the_way_home")
def blocks_may_go_before_they_are_home(patch: pytest.MonkeyPatch) -> None:
    """As soon as their writes have been issued."""
    original = checkpoint._write_home

    def write_home(journal: Journal, last: int) -> Job[None]:
        for request in original(journal, last):
            if isinstance(request, Write):
                address = request.offset // journal.store.fmt.block_size
                for at in range(address, address + len(request.buffers)):
                    home = journal.pending_home.get(at)
                    if home is not None:
                        journal.came_home(at, [home])
            yield request

    _home(patch, write_home)


@fault("evicted_on_the_way_home")
def the_home_write_of_an_older_image_drops_a_newer_one(patch: pytest.MonkeyPatch) -> None:
    """`came_home` does not look at which image it was that has been written."""

    def came_home(journal: Journal, first: int, written: list[Home]) -> None:
        for address in range(first, first + len(written)):
            newest = journal.pending_home.pop(address, None)
            if newest is not None:
                journal._settle(address, newest[1])
        journal.on_home()

    patch.setattr(Journal, "came_home", came_home)


@fault("evicted_on_the_way_home")
def a_block_that_is_dirty_again_is_dropped_after_its_home_write(patch: pytest.MonkeyPatch) -> None:
    """The running transaction has a newer image, which no checkpoint has taken up yet."""
    original = Journal.came_home

    def came_home(journal: Journal, first: int, written: list[Home]) -> None:
        original(journal, first, written)
        for address in range(first, first + len(written)):
            if address in journal.running.images:
                journal.store.cache.let_go(address)

    patch.setattr(Journal, "came_home", came_home)


@fault("evicted_on_the_way_home")
def the_tail_passes_what_was_committed_meanwhile(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint frees the log of transactions that were committed while it was writing others home."""

    def run(journal: Journal, now_ns: int, clean: bool) -> Job[int]:
        store = journal.store
        last = journal.committed[-1].tid if journal.committed else 0
        yield from checkpoint._write_home(journal, last)
        yield Flush()
        count = len(journal.committed)
        tail, tail_tid = journal.tail_after(count)
        changes: dict[str, object] = {"journal_tail": tail, "tail_tid": tail_tid, "written_ns": now_ns}
        if clean:
            changes["tail_tid"] = journal.running.tid
            changes["state"] = store.superblock.state | STATE_CLEAN
        yield from store.write_superblock(**changes)
        return journal.advance(count)

    patch.setattr(checkpoint, "_checkpoint", run)


@fault("evicted_on_the_way_home")
def the_tail_moves_when_the_last_block_is_written(patch: pytest.MonkeyPatch) -> None:
    """Before the flush: what has come home, and has left memory, may still be lost."""
    wrap_job(patch, checkpoint, "_checkpoint", 1)
