"""Planted faults of numbering, revokes, long transactions, discards, barriers and marks; see `faults`."""

from __future__ import annotations

from typing import Any

import pytest

from deferfs.ondisk.format import Format
from deferfs.ondisk.journal import decode_revokes, peek
from deferfs.ondisk.superblock import Superblock
from deferfs.store import checkpoint, commit, recovery, store
from deferfs.store.io import Discard, Job
from deferfs.store.journal import Journal
from deferfs.store.plan import Plan
from deferfs.store.recovery import LogContent, LogReader
from deferfs.store.space import FreeSpace
from deferfs.store.transaction import Transaction
from tests.property.faults import fault, without_flush, wrap_job
from tests.property.more_faults import FAULTS

__all__ = ["FAULTS"]


@fault("crash_after_crash")
def the_end_of_a_recovery_is_not_flushed(patch: pytest.MonkeyPatch) -> None:
    """Its superblock and that of the mount are on their way together: one may be lost and the other one trashed."""
    wrap_job(patch, store, "recover", 2)


@fault("alike_after_a_crash")
def a_recovery_numbers_from_the_tail_again(patch: pytest.MonkeyPatch) -> None:
    original = recovery.read_log

    def read_log(superblock: Superblock) -> Job[LogContent]:
        content = yield from original(superblock)
        content.newest_tid_seen = superblock.tail_tid - 1
        return content

    patch.setattr(recovery, "read_log", read_log)


@fault("large_transactions")
def only_the_first_block_of_revokes_counts(patch: pytest.MonkeyPatch) -> None:
    def decode(fmt: Format, block: bytes, count: int) -> list[int]:
        header = peek(fmt, block)
        assert header is not None
        return [] if header[2] else decode_revokes(fmt, block, count)

    patch.setattr(recovery, "decode_revokes", decode)


@fault("large_transactions")
def only_the_first_descriptor_counts(patch: pytest.MonkeyPatch) -> None:
    original = LogReader.transaction

    def transaction(reader: LogReader, tid: int, start: int) -> Job[recovery.Transaction | None]:
        found = yield from original(reader, tid, start)
        if found is not None:
            count = reader.superblock.format.tags_per_descriptor
            del found.homes[count:], found.offsets[count:]
        return found

    patch.setattr(LogReader, "transaction", transaction)


def _short_runs(patch: pytest.MonkeyPatch, module: Any) -> None:
    original = module.runs_of
    patch.setattr(
        module, "runs_of", lambda addresses: [(first, min(length, 64)) for first, length in original(addresses)]
    )


@fault("large_transactions")
def long_runs_are_replayed_in_part(patch: pytest.MonkeyPatch) -> None:
    _short_runs(patch, recovery)


@fault("large_transactions")
def long_runs_are_brought_home_in_part(patch: pytest.MonkeyPatch) -> None:
    _short_runs(patch, checkpoint)


@fault("freed_during_commit")
def blocks_in_the_committing_transaction_are_not_revoked(patch: pytest.MonkeyPatch) -> None:
    """Only what a checkpoint would bring home, or the running transaction holds."""

    def free_metadata(plan: Plan, address: int) -> None:
        plan.staged.pop(address, None)
        journal = plan.store.journal
        if address in journal.pending_home or address in journal.running.images:
            plan.revoked.append(address)
        plan.free(address, 1)

    patch.setattr(Plan, "free_metadata", free_metadata)


@fault("unmounted")
def the_image_is_marked_clean_before_it_is(patch: pytest.MonkeyPatch) -> None:
    original = checkpoint._checkpoint

    def marked(journal: Journal, now_ns: int, clean: bool) -> Job[int]:
        job = original(journal, now_ns, clean)
        return without_flush(job, 1) if clean else job

    patch.setattr(checkpoint, "_checkpoint", marked)


@fault("discarded")
def blocks_are_discarded_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    original = commit._write

    def write(journal: Journal, transaction: Transaction, now_ns: int) -> Job[None]:
        size = journal.store.fmt.block_size
        for first, length in transaction.freed:
            yield Discard(first * size, length * size)
        yield from original(journal, transaction, now_ns)

    patch.setattr(commit, "_write", write)


class _Released(list[tuple[int, int]]):
    """Freed runs that may be used again already."""


@fault("discarded")
def freed_blocks_are_used_again_before_their_discard(patch: pytest.MonkeyPatch) -> None:
    original_complete, original_release = Journal.complete, FreeSpace.release

    def complete(journal: Journal, transaction: Transaction) -> list[tuple[int, int]]:
        freed = _Released(original_complete(journal, transaction))
        original_release(journal.store.space, freed)
        return freed

    def release(space: FreeSpace, runs: list[tuple[int, int]]) -> None:
        if not isinstance(runs, _Released):
            original_release(space, runs)

    patch.setattr(Journal, "complete", complete)
    patch.setattr(FreeSpace, "release", release)


@fault("little_memory")
def dirty_blocks_may_be_evicted(patch: pytest.MonkeyPatch) -> None:
    """Before they are committed."""
    original = Journal._take

    def take(journal: Journal, plan: Plan) -> None:
        original(journal, plan)
        for address in plan.staged:
            journal.store.cache.let_go(address)

    patch.setattr(Journal, "_take", take)
