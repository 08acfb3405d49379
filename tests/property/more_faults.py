"""Planted faults of replay order, superblocks, allocator, orphans, inodegc and mount; see `faults`."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import SUPERBLOCK_OFFSETS
from deferfs.ondisk.inode import Inode
from deferfs.ondisk.journal import peek
from deferfs.ondisk.orphan import OrphanBlock
from deferfs.reclaim.spill import Spill
from deferfs.store import checkpoint, commit, extents, recovery, store, xattrs
from deferfs.store.io import Flush, Job
from deferfs.store.journal import Journal
from deferfs.store.orphans import OrphanTable
from deferfs.store.plan import Plan
from deferfs.store.recovery import LogReader, Transaction, _NewestImages
from deferfs.store.space import FreeSpace
from deferfs.volume import inactivation
from deferfs.volume.inactivation import Inactivation
from tests.property.faults import FAULTS, fault

__all__ = ["FAULTS"]

# --- log and replay ---


@fault("reuse_with_images_in_the_log")
def replay_lets_older_images_win(patch: pytest.MonkeyPatch) -> None:
    original = _NewestImages.add

    def add(images: _NewestImages, transaction: Transaction) -> None:
        known = {key >> images._shift for key in images._keys}
        kept = [at for at, home in enumerate(transaction.homes) if home not in known]
        transaction.offsets = array("Q", [transaction.offsets[at] for at in kept])
        transaction.homes = array("Q", [transaction.homes[at] for at in kept])
        original(images, transaction)

    patch.setattr(_NewestImages, "add", add)


@fault("large_directory")
def an_earlier_lap_of_the_log_is_replayed(patch: pytest.MonkeyPatch) -> None:
    """Any whole transaction will do, as if checksums and records did not carry its number."""
    original = LogReader.transaction

    def transaction(reader: LogReader, tid: int, start: int) -> Job[Transaction | None]:
        header = peek(reader.superblock.format, (yield from reader.block(start)))
        return None if header is None else (yield from original(reader, header[1], start))

    patch.setattr(LogReader, "transaction", transaction)


@fault("full_log")
def the_superblocks_do_not_take_turns(patch: pytest.MonkeyPatch) -> None:
    for module in (store, recovery):
        patch.setattr(module, "superblock_offset", lambda superblock: SUPERBLOCK_OFFSETS[0])


@fault("every_flush")
def a_checkpoint_leaves_one_image_behind(patch: pytest.MonkeyPatch) -> None:
    original = checkpoint._write_home

    def write_home(journal: Journal, last: int) -> Job[None]:
        pending = journal.pending_home
        left = max((address for address, (tid, _) in pending.items() if tid <= last), default=None)
        held = None if left is None else pending.pop(left)
        try:
            yield from original(journal, last)
        finally:
            if left is not None and held is not None:
                pending.setdefault(left, held)
        if left is not None and held is not None:
            journal.came_home(left, [held])

    patch.setattr(checkpoint, "_write_home", write_home)


@fault("reuse_with_images_in_the_log")
def a_commit_with_data_writes_its_record_first(patch: pytest.MonkeyPatch) -> None:
    """The commit record goes out with the log, before the barrier that the data needs."""
    write = commit._write

    def early(journal: Journal, transaction: Any, now_ns: int) -> Job[None]:
        requests = list(write(journal, transaction, now_ns))
        yield from (request for request in requests if not isinstance(request, Flush))
        yield Flush()

    patch.setattr(commit, "_write", early)


# --- allocator ---


@fault("every_flush")
def the_allocator_hands_out_blocks_twice(patch: pytest.MonkeyPatch) -> None:
    """One block in sixteen is not marked as used, in memory or on disk."""
    original = Plan._mark

    def mark(plan: Plan, first: int, length: int, value: int) -> None:
        original(plan, first, length, value)
        if value and first % 16 == 0:
            size = plan.store.fmt.bits_per_bitmap
            address = plan.store.superblock.bitmap_address(first // size)
            plan.modify(address, Bitmap).bits[first % size] = 0

    patch.setattr(Plan, "_mark", mark)


@fault("every_flush")
def freed_blocks_stay_marked(patch: pytest.MonkeyPatch) -> None:
    """In the bitmap on disk, one block in sixteen is lost."""
    original = Plan._mark

    def mark(plan: Plan, first: int, length: int, value: int) -> None:
        original(plan, first, length, value)
        if not value and first % 16 == 0:
            size = plan.store.fmt.bits_per_bitmap
            address = plan.store.superblock.bitmap_address(first // size)
            plan.modify(address, Bitmap).bits[first % size] = 1

    patch.setattr(Plan, "_mark", mark)


# --- orphans and inodegc ---


@fault("many_extents")
def an_orphan_slot_is_freed_early(patch: pytest.MonkeyPatch) -> None:
    """With the first blocks of the file instead of with the last."""

    def progress(table: OrphanTable, plan: Plan, inode: Inode, cursor: int) -> None:
        clear(table, plan, inode)

    def clear(table: OrphanTable, plan: Plan, record: Inode) -> None:
        if record.orphan_slot:
            table_clear(table, plan, record)

    table_clear = OrphanTable.clear
    patch.setattr(OrphanTable, "progress", progress)
    patch.setattr(OrphanTable, "clear", clear)


@fault("many_extents")
def the_progress_cursor_runs_ahead(patch: pytest.MonkeyPatch) -> None:
    """It is trusted when an inactivation is taken up, and says more than the transaction did."""
    original_free, original_progress = inactivation.free_data, OrphanTable.progress

    def free_data(plan: Plan, record: Inode) -> bool:
        table = plan.store.orphans
        number, index = divmod(record.orphan_slot - 1, table.per_block)
        cursor = plan.get(table._address(plan, number), OrphanBlock).slots[index].cursor
        last = extents.last_mapping(plan, record) if inactivation.has_extents(record) else None
        if cursor and last is not None and last.end > cursor:
            extents.remove(plan, record, cursor, last.end)
        return original_free(plan, record)

    def progress(table: OrphanTable, plan: Plan, inode: Inode, cursor: int) -> None:
        original_progress(table, plan, inode, max(1, cursor - 20))

    patch.setattr(inactivation, "free_data", free_data)
    patch.setattr(OrphanTable, "progress", progress)


@fault("many_extents")
def an_inactivation_ends_early(patch: pytest.MonkeyPatch) -> None:
    """After its first transaction the record is freed, with what is still mapped."""
    original = inactivation.free_data

    def free_data(plan: Plan, record: Inode) -> bool:
        original(plan, record)
        return True

    patch.setattr(inactivation, "free_data", free_data)


@fault("many_orphans")
def an_inactivation_frees_no_attributes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(xattrs, "free", lambda plan, record: None)


@fault("many_extents")
def an_inactivation_is_left_after_its_first_step(patch: pytest.MonkeyPatch) -> None:
    original = Inactivation.step
    patch.setattr(Inactivation, "step", lambda self, plan: bool(self.steps) or original(self, plan))


# --- what a mount rebuilds in memory ---


@fault("reuse_with_images_in_the_log")
def the_mount_counts_a_free_block_too_few(patch: pytest.MonkeyPatch) -> None:
    original = FreeSpace.add_group

    def add_group(space: FreeSpace, bits: Any) -> None:
        original(space, bits)
        space.counts[-1] -= 1
        space.free_blocks -= 1

    patch.setattr(FreeSpace, "add_group", add_group)


@fault("many_orphans")
def the_mount_takes_up_one_orphan_less(patch: pytest.MonkeyPatch) -> None:
    original = Spill.found

    def found(spill: Spill, number: int, count: int, blocks: int, now_ns: int) -> None:
        original(spill, number, count - 1, blocks, now_ns)

    patch.setattr(Spill, "found", found)
