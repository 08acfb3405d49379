"""Planted faults of what is decided while requests wait; see `faults`. Each takes one rule of the engine away."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from deferfs.errors import FsError
from deferfs.reclaim.gc import InodeGc
from deferfs.reclaim.inode import ActiveReference, InCoreInode
from deferfs.store.journal import Journal
from deferfs.store.orphans import OrphanTable
from deferfs.volume import orphans, quarantine, writing
from deferfs.volume.cleanup import Cleanup
from deferfs.volume.durability import Durability
from deferfs.volume.engine import Engine
from deferfs.volume.eviction import Eviction
from deferfs.volume.freezing import Freezing
from deferfs.volume.holding import Holding
from deferfs.volume.space import SpaceReclaimer
from deferfs.volume.throttle import Throttle
from deferfs.volume.waits import ReadBytes, Task
from tests.property.debt_faults import FAULTS
from tests.property.faults import fault

__all__ = ["FAULTS", "WAITING"]

_OTHERS = frozenset(FAULTS)


def _nothing(*_: Any, **__: Any) -> Task[None]:
    """A task that does nothing."""
    yield from ()


# --- the ways to space ---
@fault("space_is_found")
def a_full_disk_does_not_wait_for_a_commit(patch: pytest.MonkeyPatch) -> None:
    """Blocks that are free already, but not committed."""
    original = SpaceReclaimer.make

    def make(space: SpaceReclaimer, blocks: int, *, reserve: bool) -> Task[None]:
        if space._store.space.pending_blocks and not space._store.frozen:
            raise FsError(errno.ENOSPC)
        yield from original(space, blocks, reserve=reserve)

    patch.setattr(SpaceReclaimer, "make", make)


@fault("space_is_found")
def a_full_disk_does_not_wait_for_inodegc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SpaceReclaimer, "_inactivate", _nothing)


@fault("space_is_found")
def a_full_disk_keeps_the_blocks_past_eof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Eviction, "trim_for_space", _nothing)


@fault("space_is_found")
def a_disk_is_full_when_a_freeze_begins(patch: pytest.MonkeyPatch) -> None:
    """inodegc leaves off for it, and what it was to free is given up."""

    def changed(space: SpaceReclaimer, seen: int) -> bool:
        return space._store.space.epoch != seen or space._store.space.pending_blocks > 0

    patch.setattr(SpaceReclaimer, "_changed", changed)


@fault("space_is_found")
def a_write_to_a_full_disk_writes_nothing(patch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> Task[int]:
        yield from ()
        return 0

    patch.setattr(writing, "_write_what_fits", none)


@fault("space_is_found")
def a_short_write_is_returned_as_a_whole_one(patch: pytest.MonkeyPatch) -> None:
    original = writing.write_all

    def write_all(engine: Engine, part: writing.WritePart, offset: int, data: bytes) -> Task[int]:
        yield from original(engine, part, offset, data)
        return len(data)

    patch.setattr(writing, "write_all", write_all)


# --- durability ---
@fault("durable_when_told")
def an_fsync_joins_the_commit_under_way(patch: pytest.MonkeyPatch) -> None:
    """Which began before the change."""
    original = Durability.through

    def through(durability: Durability, tid: int) -> Task[None]:
        committing = durability._store.journal.committing
        yield from original(durability, tid if committing is None else committing.tid)

    patch.setattr(Durability, "through", through)


@fault("durable_when_told")
def an_fsync_overlooks_what_is_being_committed(patch: pytest.MonkeyPatch) -> None:
    """A barrier is thought to be enough."""

    def uncommitted(journal: Journal, ino: int, *, data_only: bool) -> int:
        running = journal.running
        return running.tid if ino in (running.data_inodes if data_only else running.inodes) else 0

    patch.setattr(Journal, "uncommitted", uncommitted)


@fault("durable_when_told")
def a_sync_does_not_wait_for_the_running_transaction(patch: pytest.MonkeyPatch) -> None:
    def sync(durability: Durability) -> Task[None]:
        yield from durability.through(durability._store.journal.running.tid - 1)

    patch.setattr(Durability, "sync", sync)


# --- failed and interrupted cleanups ---
@fault("cleanups_fail")
def a_failed_cleanup_counts_as_done(patch: pytest.MonkeyPatch) -> None:
    def failed(gc: InodeGc, inode: InCoreInode) -> bool:
        gc.done(inode)
        return False

    patch.setattr(InodeGc, "failed", failed)


@fault("cleanups_fail")
def a_failed_inline_cleanup_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InodeGc, "failed_inline", lambda gc, inode: False)


@fault("cleanups_fail")
def quarantine_is_not_written_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quarantine, "remember", _nothing)


@fault("cleanups_fail")
def quarantine_ends_with_the_mount(patch: pytest.MonkeyPatch) -> None:
    """What was in it is adopted like any other orphan."""
    original = orphans.take_up

    def take_up(table: OrphanTable, *args: Any) -> None:
        table.quarantined.clear()
        original(table, *args)

    patch.setattr(orphans, "take_up", take_up)


@fault("cleanups_fail")
def a_release_from_quarantine_leaves_the_flag(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(quarantine, "release", _nothing)


@fault("frozen")
def an_interrupted_cleanup_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Inline: it is not left to inodegc."""

    def inline(cleanup: Cleanup, inode: InCoreInode) -> Task[None]:
        cleanup.busy += 1
        yield from cleanup.inactivate(inode)
        cleanup.busy -= 1
        cleanup.told()

    patch.setattr(Cleanup, "inline", inline)


# --- throttling ---
@fault("throttled")
def deletes_overtake_each_other(patch: pytest.MonkeyPatch) -> None:
    original = Throttle._admit_first

    def admit(throttle: Throttle) -> None:
        throttle._waiters.reverse()
        original(throttle)
        throttle._waiters.reverse()

    patch.setattr(Throttle, "_admit_first", admit)


@fault("throttled")
def progress_of_cleanup_admits_no_delete(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Throttle, "progress", lambda throttle: None)


@fault("throttled")
def deletes_wait_for_inodegc_that_rests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Throttle, "release", lambda throttle: None)


@fault("throttled")
def no_delete_is_held_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Throttle, "reason", lambda throttle: "")


# --- freezing ---
@fault("frozen")
def a_thaw_leaves_the_image_marked_clean(patch: pytest.MonkeyPatch) -> None:
    """A crash after it takes what the log holds."""
    patch.setattr(Freezing, "_mark_in_use", _nothing)


@fault("frozen")
def a_freeze_is_over_before_the_image_is_clean(patch: pytest.MonkeyPatch) -> None:
    def quiesce(freezing: Freezing) -> Task[None]:
        yield from freezing._engine.cleanup.quiesce()
        freezing._store.frozen = True
        yield from freezing._engine.durability.sync()

    patch.setattr(Freezing, "_quiesce", quiesce)


@fault("frozen")
def inodegc_is_started_during_a_freeze(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cleanup, "resume", Cleanup.restart)


@fault("frozen")
def a_thaw_starts_inodegc_that_was_stopped_by_request(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cleanup, "release", Cleanup.restart)


@fault("frozen")
def inodegc_does_not_go_on_after_a_thaw(patch: pytest.MonkeyPatch) -> None:
    def release(freezing: Freezing) -> None:
        freezing._store.frozen = False

    patch.setattr(Freezing, "_release", release)


# --- the last close ---
@fault("closed")
def the_last_close_of_a_deleted_file_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def release(eviction: Eviction, reference: ActiveReference) -> None:
        reference.release()

    patch.setattr(Eviction, "release", release)


@fault("closed")
def the_last_close_keeps_the_blocks_past_eof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Eviction, "trim_later", lambda eviction, ino, generation: None)


# --- unmount ---
@fault("unmounted_while_cleaning")
def an_unmount_forgets_inodes_held_by_the_kernel(patch: pytest.MonkeyPatch) -> None:
    original = Freezing.unmount

    def unmount(freezing: Freezing, drain_seconds: float) -> Task[None]:
        freezing._engine.volume.inodes.drop_all()
        yield from original(freezing, drain_seconds)

    patch.setattr(Freezing, "unmount", unmount)


@fault("unmounted_while_cleaning")
def an_unmount_does_not_wait_for_cleanups_under_way(patch: pytest.MonkeyPatch) -> None:
    """They go on when the image is closed."""

    def stop(cleanup: Cleanup) -> Task[None]:
        yield from ()

    patch.setattr(Cleanup, "stop", stop)


@fault("unmounted_while_cleaning")
def an_unmount_does_not_wait_for_queued_inodes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cleanup, "flush", _nothing)


# --- reads that have to be waited for ---
@fault("cold_reads")
def blocks_read_before_a_wait_are_used_after_it(patch: pytest.MonkeyPatch) -> None:
    def read(holding: Holding, offset: int, length: int) -> Task[bytes | None]:
        old = holding._engine.device.read(offset, length)
        yield ReadBytes(offset, length, again=False)
        return old

    patch.setattr(Holding, "_read", read)


@fault("log_space_is_shared")
def log_space_that_is_given_up_serves_no_other(patch: pytest.MonkeyPatch) -> None:
    """An operation that ends keeps what it was granted and did not use."""

    def end(holding: Holding) -> None:
        cache = holding._engine.store.cache
        for address in holding._blocks:
            cache.let_go(address)

    patch.setattr(Holding, "end", end)


WAITING = tuple(name for name in FAULTS if name not in _OTHERS)
"""Those in here."""
