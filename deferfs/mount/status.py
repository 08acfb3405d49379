"""What a running mount tells about itself, and what may be changed while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs import __version__
from deferfs.errors import UsageError
from deferfs.limits import GC_WORKERS_MAX, MEMORY_BYTES_MIN
from deferfs.mount.units import parse_size
from deferfs.volume.attributes import statfs

if TYPE_CHECKING:
    from deferfs.mount.runtime import Runtime


def snapshot(runtime: Runtime) -> dict[str, object]:
    """Statistics of the moment; the schema is in docs/command-line.md."""
    store, volume = runtime.store, runtime.volume
    memory, journal = store.memory.statistics(), store.journal.statistics()
    inodes, gc, space = volume.inodes.statistics(), volume.gc.statistics(), statfs(volume)
    return {
        "version": __version__,
        "uuid": store.superblock.uuid.hex(),
        "label": store.superblock.label.decode("utf-8", "replace"),
        "evict": volume.policy.name,
        "read_only": store.read_only or store.journal.aborted is not None,
        "memory": {
            "budget_bytes": memory.budget_bytes,
            "used_bytes": memory.used_bytes,
            "inode_bytes": memory.accounts["inodes"],
            "block_bytes": memory.accounts["blocks"],
            "reserve_bytes": memory.reserve_bytes,
            "direct_reclaims_total": runtime.direct_reclaims_total,
        },
        "inodes": {
            "cached": inodes.cached,
            "active": inodes.active,
            "idle": inodes.idle,
            "queued": inodes.queued,
            "inactivating": inodes.inactivating,
            "quarantined": inodes.quarantined,
            "anomalies": inodes.anomalies,
        },
        "gc": {
            "queued": volume.gc.backlog + len(store.recovered),
            "pending_bytes": inodes.pending_blocks * store.fmt.block_size,
            "queued_total": gc.queued_total,
            "inactivated_total": inodes.inactivated_total,
            "cancelled_total": inodes.cancelled_total,
            "errors_total": gc.errors_total,
            "batches_total": gc.batches_total,
            "oldest_seconds": gc.oldest_ns / 1e9,
            "workers": runtime.workers.count,
        },
        "journal": {
            "blocks": journal.blocks,
            "used_blocks": journal.used_blocks,
            "running_blocks": journal.running_blocks,
            "tid": journal.tid,
            "commits_total": journal.commits_total,
            "checkpoints_total": journal.checkpoints_total,
            "single_barrier_commits_total": journal.single_barrier_commits_total,
            "blocks_logged_total": journal.blocks_logged_total,
            "revokes_total": journal.revokes_total,
            "aborted": journal.aborted,
        },
        "space": {
            "block_size": space.block_size,
            "blocks": space.blocks,
            "free_blocks": space.free,
            "pending_free_blocks": store.space.pending_blocks + inodes.pending_blocks,
            "inodes_used": store.inodes.used,
            "orphans": store.orphans.count,
        },
        "requests": runtime.requests.snapshot(),
        "waits": runtime.waits.snapshot(),
        "reclaim_context": {
            "violations_total": runtime.checker.violations_total,
            "violations": dict(runtime.checker.violations),
            "lock_order_edges": runtime.checker.lockdep.edge_count,
            "lock_order_cycles": len(runtime.checker.lockdep.cycles),
            "circular_waits_broken_total": runtime.circles.broken_total,
        },
        "corruptions_total": runtime.corruptions_total,
    }


async def control(runtime: Runtime, key: str, value: str) -> str:
    """Carry out one `ctl` request; what was done, in a line."""
    background = runtime.background
    if key == "evict":
        runtime.volume.set_policy(value)
    elif key == "commit":
        background.commit_seconds = _number(key, value, 0.01, 86400)
    elif key == "gc_workers":
        runtime.workers.set_count(int(_number(key, value, 1, GC_WORKERS_MAX)))
    elif key == "memory":
        size = parse_size(value)
        if size < MEMORY_BYTES_MIN:
            raise UsageError(f"memory must be at least {MEMORY_BYTES_MIN} bytes, not {value!r}")
        runtime.store.memory.set_limit(size)
    elif key == "gc" and value == "push":
        runtime.workers.push()
    elif key == "gc" and value == "flush":
        await runtime.workers.flush()
    elif key == "lockdep" and value == "report":
        return lock_report(runtime)
    elif key == "drop_caches" and value == "1":
        await runtime.shrink(1 << 62)
    else:
        raise UsageError(
            f"cannot set {key}={value}: known are evict=, commit=, gc_workers=, memory=, gc=push|flush, drop_caches=1, "
            "lockdep=report"
        )
    return f"{key}={value}"


def lock_report(runtime: Runtime) -> str:
    """What the reclaim checker has seen, as text."""
    lines = [*runtime.checker.report(), f"circular waits broken: {runtime.circles.broken_total}"]
    return "\n".join(lines)


def _number(key: str, value: str, low: float, high: float) -> float:
    try:
        number = float(value)
    except ValueError:
        raise UsageError(f"{key} must be a number, not {value!r}") from None
    if not low <= number <= high:
        raise UsageError(f"{key} must be from {low:g} to {high:g}, not {value}")
    return number
