"""Statistics of a running mount, as defined in `deferfs.contract.statistics`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deferfs import __version__
from deferfs.contract.statistics import (
    SCHEMA,
    Gc,
    Inodes,
    Journal,
    Memory,
    Queue,
    ReclaimContext,
    Space,
    Statistics,
    Throttle,
)
from deferfs.mount.host.resident import promised_bytes, resident
from deferfs.store import COMPILED
from deferfs.volume.attributes import statfs

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Served:
    """What statistics need from the daemon beside the runtime. `handlers`: maximum of requests handled at once."""

    image: str
    mountpoint: str
    pid: int
    uptime_seconds: float
    handlers: int


def snapshot(runtime: Runtime, served: Served) -> Statistics:
    """Current statistics."""
    store = runtime.store
    return Statistics(
        schema=SCHEMA,
        image=served.image,
        mountpoint=served.mountpoint,
        pid=served.pid,
        uptime_seconds=served.uptime_seconds,
        handlers=served.handlers,
        version=__version__,
        compiled=COMPILED,
        uuid=store.superblock.uuid.hex(),
        label=store.superblock.label.decode("utf-8", "replace"),
        evict=runtime.volume.policy.name,
        read_only=store.read_only or store.journal.aborted is not None,
        frozen=store.frozen,
        freeze=runtime.freezer.snapshot(),
        memory=_memory(runtime),
        inodes=_inodes(runtime),
        gc=_gc(runtime),
        throttle=_throttle(runtime),
        journal=_journal(runtime),
        space=_space(runtime),
        poll=runtime.busy_poll.statistics(),
        requests=runtime.requests.snapshot(),
        waits=runtime.waits.snapshot(),
        waits_by_request=runtime.waits.by_actor_snapshot(),
        timeline=runtime.timeline.snapshot(),
        reclaim_context=_reclaim_context(runtime),
        corruptions_total=runtime.corruptions_total,
    )


def _memory(runtime: Runtime) -> Memory:
    memory, process = runtime.store.memory.statistics(), resident()
    return Memory(
        budget_bytes=memory.budget_bytes,
        used_bytes=memory.used_bytes,
        inode_bytes=memory.accounts["inodes"],
        block_bytes=memory.accounts["blocks"],
        dirty_bytes=runtime.store.dirty_bytes,
        unflushed_bytes=runtime.engine.write_out.unflushed_bytes,
        superseded_bytes=memory.accounts["superseded"],
        table_bytes=memory.accounts["tables"],
        debt_bytes=memory.accounts["debts"],
        buffer_bytes=memory.accounts.get("buffers", 0),
        resident_bytes=process.now_bytes,
        resident_highest_bytes=process.highest_bytes,
        promised_bytes=promised_bytes(
            memory.budget_bytes, runtime.volume.inodes.highest, runtime.volume.directories_highest
        ),
        reserve_bytes=memory.reserve_bytes,
        background_reclaim=runtime.engine.reclaim.works,
        direct_reclaims_total=runtime.reclaimer.direct_reclaims_total,
        pressure_events_total=sum(runtime.pressure.events.values()),
        pressure_sources=runtime.pressure.events,
    )


def _inodes(runtime: Runtime) -> Inodes:
    inodes = runtime.volume.inodes.statistics()
    return Inodes(
        cached=inodes.cached,
        active=inodes.active,
        idle=inodes.idle,
        queued=inodes.queued,
        inactivating=inodes.inactivating,
        quarantined=inodes.quarantined,
        held_orphans=runtime.volume.inodes.held_orphans,
        forgets_waiting=runtime.forgets.waiting,
        anomalies=inodes.anomalies,
    )


def _gc(runtime: Runtime) -> Gc:
    store, workers, debts = runtime.store, runtime.workers, runtime.volume.inodes.debts
    inodes, gc = runtime.volume.inodes.statistics(), runtime.volume.gc.statistics()
    size = store.fmt.block_size
    return Gc(
        queued=runtime.volume.gc.backlog,
        in_core=gc.in_core,
        in_core_max=runtime.volume.gc.in_core_max,
        in_table=runtime.volume.spill.count,
        pending_bytes=inodes.pending_blocks * size,
        pending_extents=gc.extents,
        times_owed=debts.count,
        times_owed_max=debts.count_max,
        times_paid_total=debts.paid_total,
        time_updates_total=runtime.volume.repayment.blocks_total,
        delayed=gc.delayed,
        queued_total=gc.queued_total,
        inactivated_total=inodes.inactivated_total,
        cancelled_total=inodes.cancelled_total,
        errors_total=gc.errors_total,
        quarantined_total=gc.quarantined_total,
        batches_total=gc.batches_total,
        oldest_seconds=gc.oldest_ns / 1e9,
        workers=workers.count,
        stopped=workers.stopped,
        delay_seconds=runtime.engine.workers.delay_seconds,
        rate=workers.pace.rate,
        inactivation=workers.inactivations.snapshot(),
        queues=[
            Queue(
                depth=queue.depth,
                bytes=queue.blocks * size,
                extents=queue.extents,
                oldest_seconds=queue.oldest_ns / 1e9,
                queued_total=queue.queued_total,
                batches_total=queue.batches_total,
            )
            for queue in gc.queues
        ],
    )


def _throttle(runtime: Runtime) -> Throttle:
    throttle = runtime.engine.throttle
    return Throttle(
        waiting=throttle.waiting,
        expired_total=throttle.expired_total,
        killed_total=throttle.killed_total,
        inodes=throttle.inodes,
        bytes=throttle.bytes,
        extents=throttle.extents,
        age_seconds=throttle.age_seconds,
        deadline_seconds=throttle.deadline_seconds,
    )


def _journal(runtime: Runtime) -> Journal:
    journal = runtime.store.journal.statistics()
    return Journal(
        blocks=journal.blocks,
        used_blocks=journal.used_blocks,
        running_blocks=journal.running_blocks,
        tid=journal.tid,
        commits_total=journal.commits_total,
        checkpoints_total=journal.checkpoints_total,
        write_backs_total=journal.write_backs_total,
        single_barrier_commits_total=journal.single_barrier_commits_total,
        blocks_logged_total=journal.blocks_logged_total,
        revokes_total=journal.revokes_total,
        aborted=journal.aborted,
    )


def _space(runtime: Runtime) -> Space:
    store, space = runtime.store, statfs(runtime.volume)
    pending = store.space.pending_blocks + runtime.volume.inodes.pending_blocks
    return Space(
        block_size=space.block_size,
        blocks=space.blocks,
        free_blocks=space.free,
        pending_free_blocks=pending,
        inodes_used=store.inodes.used,
        orphans=store.orphans.count,
        preallocated_files=runtime.blockgc.files,
        preallocations_trimmed_total=runtime.blockgc.trimmed_total,
        refused_total=runtime.engine.space.refused_total,
    )


def _reclaim_context(runtime: Runtime) -> ReclaimContext:
    checker = runtime.checker
    return ReclaimContext(
        violations_total=checker.violations_total,
        violations=dict(checker.violations),
        lock_order_edges=checker.lockdep.edge_count,
        lock_order_cycles=len(checker.lockdep.cycles),
        circular_waits_broken_total=runtime.engine.log_space.broken_total,
    )
