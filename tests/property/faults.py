"""Planted faults: each takes one rule of the journal away. The crash tests must find every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from deferfs.crash import twin
from deferfs.device import FailingDevice
from deferfs.ondisk.format import Format
from deferfs.ondisk.inode import Inode
from deferfs.store import checkpoint, commit, extents, recovery, store
from deferfs.store.io import Flush, Job, Write
from deferfs.store.journal import Journal
from deferfs.store.orphans import OrphanTable
from deferfs.store.plan import Plan
from deferfs.store.pump import Pump
from deferfs.store.transaction import Transaction
from deferfs.volume import files, orphans
from deferfs.volume.durability import Durability
from deferfs.volume.waits import Task

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """How to plant it, and the sweep that was made to find it."""

    plant: Plant
    sweep: str


FAULTS: dict[str, Fault] = {}


def fault(sweep: str) -> Callable[[Plant], Plant]:
    """Register a fault under the name of the function that plants it."""

    def register(plant: Plant) -> Plant:
        FAULTS[plant.__name__] = Fault(plant, sweep)
        return plant

    return register


def without_flush(job: Job[Any], number: int) -> Job[Any]:
    """The job without its `number`-th flush, counted from 1."""
    running, flushes = Pump(job), 0
    while (request := running.resume()) is not None:
        flushes += isinstance(request, Flush)
        if not isinstance(request, Flush) or flushes != number:
            running.answer((yield request))
    return running.result


def wrap_job(patch: pytest.MonkeyPatch, module: Any, name: str, number: int) -> None:
    original = getattr(module, name)
    patch.setattr(module, name, lambda *args, **kwargs: without_flush(original(*args, **kwargs), number))


# --- commit ---


@fault("reuse_with_images_in_the_log")
def data_is_not_flushed_before_the_commit_record(patch: pytest.MonkeyPatch) -> None:
    original = commit._write

    def write(journal: Journal, transaction: Transaction, now_ns: int) -> Job[None]:
        transaction.ordered_data = False
        return original(journal, transaction, now_ns)

    patch.setattr(commit, "_write", write)


@fault("reuse_with_images_in_the_log")
def the_commit_record_is_not_flushed(patch: pytest.MonkeyPatch) -> None:
    original = commit._write

    def write(journal: Journal, transaction: Transaction, now_ns: int) -> Job[None]:
        return without_flush(original(journal, transaction, now_ns), 2 if transaction.ordered_data else 1)

    patch.setattr(commit, "_write", write)


@fault("reuse_with_images_in_the_log")
def the_commit_record_proves_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Format, "checksum", lambda self, tag, data: 0)


@fault("data_in_place")
def freed_blocks_are_used_again_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    original = Plan.apply

    def apply(plan: Plan) -> None:
        original(plan)
        running = plan.store.journal.running
        plan.store.space.release(running.freed)
        running.freed = []

    patch.setattr(Plan, "apply", apply)


@fault("reuse_during_checkpoint")
def freed_blocks_are_used_again_during_a_checkpoint(patch: pytest.MonkeyPatch) -> None:
    original = Journal.complete

    def complete(journal: Journal, transaction: Transaction) -> list[tuple[int, int]]:
        freed = original(journal, transaction) + journal.release_later
        journal.release_later = []
        return freed

    patch.setattr(Journal, "complete", complete)


@fault("reuse_with_images_in_the_log")
def nothing_is_revoked(patch: pytest.MonkeyPatch) -> None:
    def free_metadata(plan: Plan, address: int) -> None:
        plan.staged.pop(address, None)
        plan.free(address, 1)

    patch.setattr(Plan, "free_metadata", free_metadata)


@fault("reuse_with_images_in_the_log")
def revoked_blocks_stay_queued_for_home(patch: pytest.MonkeyPatch) -> None:
    original = Journal.complete

    def complete(journal: Journal, transaction: Transaction) -> list[tuple[int, int]]:
        transaction.revokes = set()
        return original(journal, transaction)

    patch.setattr(Journal, "complete", complete)


# --- checkpoint ---


@fault("reuse_with_images_in_the_log")
def the_tail_moves_before_images_are_at_home(patch: pytest.MonkeyPatch) -> None:
    wrap_job(patch, checkpoint, "_checkpoint", 1)


@fault("full_log")
def log_space_is_used_again_before_the_tail_is_durable(patch: pytest.MonkeyPatch) -> None:
    wrap_job(patch, checkpoint, "_checkpoint", 2)


@fault("unmounted")
def uncommitted_images_go_home(patch: pytest.MonkeyPatch) -> None:
    def write_home(journal: Journal, last: int) -> Job[None]:
        fmt = journal.store.fmt
        for address in list(journal.pending_home):
            entry = journal.store.cache.entries.get(address)
            if entry is not None:
                yield Write(address * fmt.block_size, [entry.obj.encode(fmt, address)])
        for address, image in list(journal.pending_home.items()):
            journal.came_home(address, [image])

    patch.setattr(checkpoint, "_write_home", write_home)


# --- recovery ---


@fault("reuse_with_images_in_the_log")
def replay_ignores_revokes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "decode_revokes", lambda fmt, block, count: [])


@fault("recovery_to_its_end")
def replay_is_not_flushed(patch: pytest.MonkeyPatch) -> None:
    wrap_job(patch, store, "recover", 1)


@fault("reuse_with_images_in_the_log")
def replay_stops_early(patch: pytest.MonkeyPatch) -> None:
    """The newest transaction is dropped, as if its commit record were not there."""
    original = recovery.LogReader.transaction

    def transaction(reader: recovery.LogReader, tid: int, start: int) -> Job[recovery.Transaction | None]:
        found = yield from original(reader, tid, start)
        if found is not None and (yield from original(reader, tid + 1, found.end)) is None:
            return None
        return found

    patch.setattr(recovery.LogReader, "transaction", transaction)


# --- orphans, data, fsync ---


@fault("many_orphans")
def an_unlink_takes_no_orphan_slot(patch: pytest.MonkeyPatch) -> None:
    def add(table: OrphanTable, plan: Plan, inode: Inode) -> None:
        inode.orphan_slot = 0

    def clear(table: OrphanTable, plan: Plan, inode: Inode) -> None:
        pass

    patch.setattr(OrphanTable, "add", add)
    patch.setattr(OrphanTable, "clear", clear)
    for rest in ("progress", "look", "follow", "set_quarantine"):
        patch.setattr(OrphanTable, rest, lambda *args, **kwargs: None)


@fault("data_in_place")
def truncate_zeroes_in_place(patch: pytest.MonkeyPatch) -> None:
    def copy_tail(plan: Plan, record: Inode, length: int) -> None:
        size = plan.store.fmt.block_size
        inside = length % size
        tail = extents.map_range(plan, record, length // size, 1)[0]
        if inside and tail.physical and not tail.unwritten:
            plan.data_writes.append((tail.physical * size + inside, bytes(size - inside)))

    patch.setattr(files, "_copy_tail", copy_tail)


@fault("nothing_old_shows")
def growing_files_show_what_was_past_their_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(files, "zero_tail", lambda plan, record, new_end: None)


@fault("nothing_old_shows")
def fresh_blocks_keep_what_they_held(patch: pytest.MonkeyPatch) -> None:
    def fresh(self: Any, mapping: Any) -> None:
        low = max(self.offset, mapping.logical * self.size)
        high = min(self.end, mapping.end * self.size)
        position = mapping.physical * self.size + low - mapping.logical * self.size
        self.plan.data_writes.append((position, self.data[low - self.offset : high - self.offset]))

    patch.setattr(files._Writer, "_fresh", fresh)


@fault("data_in_place")
def fsync_only_flushes(patch: pytest.MonkeyPatch) -> None:
    def fsync(durability: Durability, ino: int, *, data_only: bool = False) -> Task[None]:
        yield from durability.flush()

    patch.setattr(Durability, "fsync", fsync)


@fault("io_errors")
def jobs_go_on_after_an_abort(patch: pytest.MonkeyPatch) -> None:
    """And trust the next flush, on a device that does not remember that one has failed."""
    patch.setattr(twin, "FailingDevice", lambda device, *, like_file: FailingDevice(device))
    patch.setattr(Journal, "unless_aborted", lambda journal, job: job)


@fault("io_errors")
def an_aborted_journal_commits_again(patch: pytest.MonkeyPatch) -> None:
    """The transaction that could not be written is given up, and the next one goes on as if nothing had been."""
    patch.setattr(Journal, "abort", lambda journal, error: setattr(journal, "committing", None))


@fault("many_orphans")
def orphans_are_not_taken_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(orphans, "take_up", lambda *arguments: None)


@fault("preallocated")
def preallocated_blocks_count_as_written(patch: pytest.MonkeyPatch) -> None:
    original = extents.insert
    patch.setattr(extents, "insert", lambda plan, inode, new: original(plan, inode, new._replace(unwritten=False)))
