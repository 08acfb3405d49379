"""Statistics that the tests of stat and of its metrics print."""

from __future__ import annotations

from typing import Any

from deferfs.contract.statistics import Queue
from tests.statistics_sample import answer, zero

BIG = 10**9

TOLD: dict[str, Any] = {
    "version": "0.1.0", "compiled": False, "uuid": "0", "label": "", "image": "/image", "mountpoint": "/mnt",
    "pid": 123456, "uptime_seconds": 123.4, "evict": "deferred",
    "memory": {
        "budget_bytes": 256 << 20, "used_bytes": 255 << 20, "inode_bytes": 100 << 20,
        "block_bytes": 155 << 20, "reserve_bytes": 16 << 20, "direct_reclaims_total": BIG, "dirty_bytes": 99 << 20,
        "buffer_bytes": 198 << 20, "superseded_bytes": 99 << 20, "table_bytes": 9 << 20, "debt_bytes": 0,
        "unflushed_bytes": 31 << 20, "resident_bytes": 300 << 20,
        "resident_highest_bytes": 310 << 20, "promised_bytes": 320 << 20,
    },
    "inodes": {
        "cached": BIG, "active": BIG, "idle": BIG, "queued": BIG, "inactivating": BIG,
        "quarantined": BIG, "anomalies": {"release_unknown": BIG},
    },
    "gc": {
        "queued": BIG, "pending_bytes": 999 << 30, "queued_total": BIG, "inactivated_total": BIG,
        "in_core": BIG, "in_core_max": BIG, "in_table": BIG,
        "times_owed": 1 << 20, "times_owed_max": 1 << 20, "times_paid_total": BIG, "time_updates_total": BIG,
        "cancelled_total": BIG, "errors_total": BIG, "batches_total": BIG, "oldest_seconds": 12.3,
        "quarantined_total": BIG, "workers": 64, "stopped": False, "rate": 1e9, "delay_seconds": 0.004, "delayed": BIG,
        "queues": [
            {**zero(Queue), "depth": BIG, "bytes": 999 << 30, "oldest_seconds": 12.3},
            zero(Queue),
        ],
        "inactivation": {
            "count": 1011, "total_ns": BIG, "max_ns": 9000, "log2_ns": {"1024": 1000, "4096": 1, "16384": 10},
        },
    },
    "throttle": {"waiting": BIG, "expired_total": BIG, "killed_total": BIG},
    "journal": {
        "blocks": 16384, "used_blocks": 16384, "running_blocks": 16384, "tid": BIG,
        "commits_total": BIG, "checkpoints_total": BIG, "blocks_logged_total": BIG, "revokes_total": BIG,
        "aborted": "",
    },
    "space": {
        "block_size": 4096, "blocks": BIG, "free_blocks": BIG, "pending_free_blocks": BIG, "orphans": BIG,
        "preallocated_files": BIG, "preallocations_trimmed_total": BIG, "refused_total": BIG,
    },
    "poll": {
        "limit_us": 1000, "window_ns": 999_999, "hits_total": BIG, "misses_total": BIG, "spent_ns_total": BIG * BIG,
    },
    "requests": {
        "lookup": {"count": BIG, "total_ns": BIG * 1000, "max_ns": 12_300_000, "log2_ns": {"1024": BIG}},
        "create": {"count": 1, "total_ns": 5 * BIG, "max_ns": 5 * BIG, "log2_ns": {str(1 << 33): 1}},
        "rename": {"count": 0, "total_ns": 0, "max_ns": 0, "log2_ns": {}},
    },
    "waits": {
        "log": {"count": 0, "total_ns": 0, "max_ns": 0, "log2_ns": {}},
        "throttle": {"count": BIG, "total_ns": BIG, "max_ns": BIG, "log2_ns": {str(1 << 43): BIG}},
    },
    "waits_by_request": {
        "create": {"throttle": {"count": BIG, "total_ns": 5 * BIG, "max_ns": 5 * BIG}},
        "unlink": {"log": {"count": 1, "total_ns": 12, "max_ns": 12}},
    },
    "timeline": {"file": "", "events_total": 0, "dropped_total": 0, "written_bytes": 0},
    "reclaim_context": {
        "violations_total": BIG, "violations": {"forget:gc": BIG},
        "lock_order_cycles": 6, "lock_order_edges": 36, "circular_waits_broken_total": BIG,
    },
    "read_only": False, "frozen": False, "corruptions_total": 0,
    "freeze": {"since_ns": 0, "seconds": 0.0, "limit_seconds": 600.0, "killed_total": 0, "expired_total": 0},
}  # fmt: skip

STATISTICS = answer(**TOLD)
