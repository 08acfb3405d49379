"""The statistics of a mount: what `deferfs stat DIR --json` prints, field by field.

The names in the JSON are those of the fields. Within one `schema`, fields may be added, and existing fields keep their
meaning and unit. Removing a field or changing its meaning or unit makes a new `SCHEMA`. A field added later has a
default, for daemons that are older, so that readers understand every daemon of their schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from deferfs.contract.fields import (
    Blocks,
    Bytes,
    Count,
    Flag,
    Metric,
    Microseconds,
    Nanoseconds,
    NanosecondsTotal,
    Number,
    PerSecond,
    Seconds,
    Text,
    Total,
    says,
)
from deferfs.errors import ControlError

SCHEMA: Final = 1
"""The version of the statistics defined here."""


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Number of events and their durations."""

    count: Annotated[Total, says("number of events")]
    total_ns: Annotated[NanosecondsTotal, says("sum of their durations")]
    max_ns: Annotated[Nanoseconds, says("longest duration since the mount")]

    @property
    def mean_ns(self) -> float:
        """Mean duration; 0 without events."""
        return self.total_ns / self.count if self.count else 0.0


NEVER: Final = Totals(count=0, total_ns=0, max_ns=0)
"""Totals without events."""


class Timing(Totals, frozen=True, kw_only=True):
    """Totals with a histogram."""

    log2_ns: Annotated[
        dict[int, int],
        says("histogram: {upper bound in ns, a power of two: how many took less than it, and at least half of it}"),
    ]


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """A freeze of the filesystem (`ctl freeze=1`)."""

    since_ns: Annotated[Nanoseconds, says("when it began, since the epoch; 0: not frozen")]
    seconds: Annotated[Seconds, says("for how long it has been frozen")]
    limit_seconds: Annotated[Seconds, says("after how long a freeze ends by itself (`freeze_limit`); 0: never")]
    waiting: Annotated[Count, says("requests that wait for the thaw")]
    killed_total: Annotated[Total, says("waits that ended because the process was being killed")]
    expired_total: Annotated[Total, says("freezes that the limit has ended")]


_USED: Final = "Memory in use, by what it is used for."


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of the daemon: see [reclaim](reclaim.md#memory)."""

    budget_bytes: Annotated[
        Bytes, says("budget for cached inodes and metadata blocks (`memory`)"), Metric("memory_budget_bytes")
    ]
    used_bytes: Annotated[Bytes, says("memory in use within the budget: the sum of the accounts below")]
    inode_bytes: Annotated[
        Bytes, says("in-core inodes"), Metric("memory_used_bytes", ("cache", "inodes"), summary=_USED)
    ]
    block_bytes: Annotated[
        Bytes, says("cached metadata blocks"), Metric("memory_used_bytes", ("cache", "blocks"), summary=_USED)
    ]
    dirty_bytes: Annotated[Bytes, says("metadata blocks that have to be written home"), Metric("memory_dirty_bytes")]
    unflushed_bytes: Annotated[
        Bytes,
        says("file data in the page cache of the image that no barrier of its own has followed, beside the budget"),
        Metric("memory_unflushed_bytes"),
    ] = 0
    superseded_bytes: Annotated[
        Bytes,
        says("older images of blocks, on their way into the log or home"),
        Metric("memory_used_bytes", ("cache", "superseded"), summary=_USED),
    ]
    table_bytes: Annotated[
        Bytes,
        says("indexes: of free space, of the inode table, of orphans"),
        Metric("memory_used_bytes", ("cache", "tables"), summary=_USED),
    ]
    debt_bytes: Annotated[
        Bytes,
        says("the table of access times owed"),
        Metric("memory_used_bytes", ("cache", "debts"), summary=_USED),
    ]
    buffer_bytes: Annotated[
        Bytes,
        says("data of READ and WRITE requests under way"),
        Metric("memory_used_bytes", ("cache", "buffers"), summary=_USED),
    ]
    resident_bytes: Annotated[Bytes, says("resident size of the daemon (VmRSS)"), Metric("memory_resident_bytes")]
    resident_highest_bytes: Annotated[
        Bytes, says("highest resident size of the daemon (VmHWM)"), Metric("memory_resident_highest_bytes")
    ]
    promised_bytes: Annotated[
        Bytes,
        says("upper bound of VmHWM"),
        Metric("memory_promised_bytes", summary="Upper bound of the resident size."),
    ]
    reserve_bytes: Annotated[
        Bytes, says("part of the budget that only cleanups may use"), Metric("memory_reserve_bytes")
    ]
    background_reclaim: Annotated[Flag, says("whether memory is reclaimed in the background (`background_reclaim`)")]
    direct_reclaims_total: Annotated[
        Total, says("operations that had to reclaim memory themselves"), Metric("direct_reclaims")
    ]
    pressure_events_total: Annotated[Total, says("events of the kernel that woke the background reclaimer")]
    pressure_sources: Annotated[
        dict[str, Total], says("the same by source: `psi:FILE`, or `level:DIRECTORY` of cgroup version 1")
    ]


_STATES: Final = "Inodes in memory by state."


class Inodes(msgspec.Struct, frozen=True, kw_only=True):
    """Inodes in memory, by [state](reclaim.md)."""

    cached: Annotated[Count, says("all of them")]
    active: Annotated[
        Count, says("known to the kernel, or in use"), Metric("inodes", ("state", "active"), summary=_STATES)
    ]
    idle: Annotated[
        Count, says("unused, cached until memory is needed"), Metric("inodes", ("state", "idle"), summary=_STATES)
    ]
    queued: Annotated[Count, says("waiting for cleanup"), Metric("inodes", ("state", "queued"), summary=_STATES)]
    inactivating: Annotated[
        Count, says("being cleaned up"), Metric("inodes", ("state", "inactivating"), summary=_STATES)
    ]
    quarantined: Annotated[
        Count,
        says("in quarantine after too many failed cleanups (`ctl gc=retry`)"),
        Metric("inodes", ("state", "quarantined"), summary=_STATES),
    ]
    held_orphans: Annotated[Count, says("deleted files that are still open or known to the kernel")]
    forgets_waiting: Annotated[Count, says("FORGETs received that are not counted yet")]
    anomalies: Annotated[
        dict[str, Total],
        says("malformed requests by kind: see [operating](operating.md#malformed-traffic)"),
        Metric("anomalies", labels=("kind",), summary="Malformed requests by kind."),
    ]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """The queue of one worker of inodegc."""

    depth: Annotated[Count, says("inodes in the queue"), Metric("gc_queue_inodes")]
    bytes: Annotated[
        Bytes,
        says("space that their cleanups will free"),
        Metric("gc_queue_bytes", summary="Space held by each queue."),
    ]
    extents: Annotated[Count, says("extents of that space")]
    oldest_seconds: Annotated[
        Seconds,
        says("age of the oldest"),
        Metric("gc_queue_oldest_seconds", summary="Age of the oldest in each queue."),
    ]
    queued_total: Annotated[Total, says("inodes put into it")]
    batches_total: Annotated[Total, says("batches taken from it")]


class Gc(msgspec.Struct, frozen=True, kw_only=True):
    """The backlog of cleanups, and the work of inodegc."""

    queued: Annotated[Count, says("inodes that wait for cleanup, or are being cleaned up"), Metric("gc_backlog_inodes")]
    in_core: Annotated[Count, says("of those that wait: in-core inodes")]
    in_core_max: Annotated[Count, says("how many of them there may be (`gc_in_core`)")]
    in_table: Annotated[
        Count,
        says("of those that wait: in the orphan table alone"),
        Metric("gc_in_table_inodes", summary="Inodes that wait in the orphan table alone."),
    ]
    pending_bytes: Annotated[Bytes, says("space that the cleanups will free"), Metric("gc_pending_bytes")]
    pending_extents: Annotated[Count, says("extents of that space")]
    times_owed: Annotated[
        Count, says("access times owed to inodes that are not in memory any more"), Metric("gc_times_owed")
    ]
    times_owed_max: Annotated[Count, says("capacity of the table of access times owed")]
    times_paid_total: Annotated[
        Total,
        says("access times written together with others of their table block, of inodes in memory or not"),
        Metric("gc_times_paid"),
    ]
    time_updates_total: Annotated[Total, says("updates of inode table blocks for access times only")]
    delayed: Annotated[Count, says("failed cleanups that will be tried again")]
    queued_total: Annotated[Total, says("inodes handed to the workers"), Metric("gc_queued")]
    inactivated_total: Annotated[Total, says("inodes cleaned up, by workers and by requests"), Metric("gc_inactivated")]
    cancelled_total: Annotated[
        Total, says("cleanups cancelled because the inode was looked up again"), Metric("gc_cancelled")
    ]
    errors_total: Annotated[Total, says("failed attempts"), Metric("gc_errors")]
    quarantined_total: Annotated[Total, says("inodes put into quarantine"), Metric("gc_quarantined")]
    batches_total: Annotated[Total, says("batches taken by the workers"), Metric("gc_batches")]
    oldest_seconds: Annotated[Seconds, says("age of the oldest queued inode"), Metric("gc_oldest_seconds")]
    workers: Annotated[Count, says("size of the pool (`gc_workers`)"), Metric("gc_workers")]
    stopped: Annotated[Flag, says("whether the workers are stopped (`ctl gc=stop`, or a freeze)")]
    delay_seconds: Annotated[Seconds, says("how long a batch may gather (`gc_delay`)")]
    rate: Annotated[PerSecond, says("cleanup transactions at most (`gc_rate`); 0: no limit")]
    inactivation: Annotated[Timing, says("how long each cleanup took"), Metric("gc_inactivation_seconds")]
    queues: Annotated[list[Queue], says("each worker's queue"), Metric("gc_queue", labels=("queue",))]


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """Throttling of requests while the backlog is too large, and its limits."""

    waiting: Annotated[Count, says("requests held back now"), Metric("throttled_requests")]
    expired_total: Annotated[Total, says("waits that ended with the deadline"), Metric("throttle_expired")]
    killed_total: Annotated[Total, says("waits that ended because the process was being killed")]
    inodes: Annotated[Count, says("limit on queued inodes (`throttle_inodes`)")]
    bytes: Annotated[Bytes, says("limit on the space they hold (`throttle_bytes`)")]
    extents: Annotated[Count, says("limit on their extents (`throttle_extents`)")]
    age_seconds: Annotated[Seconds, says("limit on the age of the oldest (`throttle_age`)")]
    deadline_seconds: Annotated[Seconds, says("how long a request waits at most (`throttle_deadline`)")]


class Journal(msgspec.Struct, frozen=True, kw_only=True):
    """The log."""

    blocks: Annotated[Blocks, says("size of the log"), Metric("journal_blocks")]
    used_blocks: Annotated[Blocks, says("log blocks that a checkpoint has to free"), Metric("journal_used_blocks")]
    running_blocks: Annotated[Blocks, says("size of the running transaction"), Metric("journal_running_blocks")]
    tid: Annotated[Number, says("number of the running transaction")]
    commits_total: Annotated[Total, says("transactions committed"), Metric("journal_commits")]
    checkpoints_total: Annotated[Total, says("checkpoints that freed log space"), Metric("journal_checkpoints")]
    write_backs_total: Annotated[
        Total, says("writebacks: images written home only to make memory clean; the log keeps them")
    ]
    single_barrier_commits_total: Annotated[Total, says("commits that needed one flush of the disk instead of two")]
    blocks_logged_total: Annotated[
        Total,
        says("blocks written to the log: images, descriptors, revokes, commit records"),
        Metric("journal_blocks_logged"),
    ]
    revokes_total: Annotated[Total, says("revokes written to the log"), Metric("journal_revokes")]
    aborted: Annotated[
        Text,
        says("why the journal was aborted; empty: it was not"),
        Metric("journal_aborted", summary="1 after an IO error: nothing is written any more."),
    ]


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Space and inodes of the filesystem."""

    block_size: Annotated[Bytes, says("size of a block")]
    blocks: Annotated[Blocks, says("size of the filesystem"), Metric("size_bytes")]
    free_blocks: Annotated[Blocks, says("free space, what cleanups will free included"), Metric("free_bytes")]
    pending_free_blocks: Annotated[
        Blocks,
        says("the part of it that cleanups have yet to free"),
        Metric("pending_free_bytes", summary="Free space that cleanups have yet to free."),
    ]
    inodes_used: Annotated[Count, says("inode numbers in use")]
    orphans: Annotated[
        Count, says("deleted files whose space is not freed yet (entries of the orphan table)"), Metric("orphans")
    ]
    preallocated_files: Annotated[Count, says("files with speculative blocks past EOF")]
    preallocations_trimmed_total: Annotated[Total, says("times that such blocks were freed")]
    refused_total: Annotated[Total, says("requests refused with ENOSPC")]


class Poll(msgspec.Struct, frozen=True, kw_only=True):
    """Polling for the next request: see [operating](operating.md#busy-polling)."""

    limit_us: Annotated[Microseconds, says("longest polling time (`poll`)")]
    window_ns: Annotated[Nanoseconds, says("current polling time")]
    hits_total: Annotated[Total, says("polls during which a request arrived")]
    misses_total: Annotated[Total, says("polls without a request")]
    spent_ns_total: Annotated[NanosecondsTotal, says("time spent polling")]


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The [timeline](operating.md#a-timeline) that is being recorded, or was recorded last."""

    file: Annotated[Text, says("path of the file; empty: none is being recorded")]
    events_total: Annotated[Total, says("events recorded in it")]
    dropped_total: Annotated[Total, says("events dropped because they came too fast")]
    written_bytes: Annotated[Bytes, says("size of the file so far")]


class ReclaimContext(msgspec.Struct, frozen=True, kw_only=True):
    """Results of the checker of waits: see [reclaim](reclaim.md#lock-classes)."""

    violations_total: Annotated[Total, says("waits in reclaim context")]
    violations: Annotated[
        dict[str, Total],
        says("the same by `SOURCE:CAUSE`"),
        Metric("reclaim_waits", labels=("source", "cause"), summary="Waits in reclaim context."),
    ]
    lock_order_edges: Annotated[Count, says("pairs of lock classes of which one was waited for with the other held")]
    lock_order_cycles: Annotated[
        Count,
        says("possible deadlocks: cycles of such pairs (`ctl lockdep=report`)"),
        Metric("lock_order_cycles", summary="Possible deadlocks seen."),
    ]
    circular_waits_broken_total: Annotated[
        Total, says("deadlocks broken: waits that could never have ended"), Metric("circular_waits_broken")
    ]


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of a mount at one moment."""

    schema: Annotated[Number, says("version of these statistics")]
    image: Annotated[Text, says("path of the image")]
    mountpoint: Annotated[Text, says("where it was mounted")]
    pid: Annotated[Number, says("process of the daemon")]
    uptime_seconds: Annotated[Seconds, says("age of the mount"), Metric("uptime_seconds")]
    handlers: Annotated[Count, says("requests handled at once, at most (`handlers`)")]
    version: Annotated[Text, says("version of deferfs")]
    compiled: Annotated[Flag, says("whether the core is compiled")]
    uuid: Annotated[Text, says("UUID of the filesystem, 32 hexadecimal digits")]
    label: Annotated[Text, says("label of the filesystem")]
    evict: Annotated[Text, says("which task waits for cleanups: `deferred` or `inline` (`evict`)")]
    read_only: Annotated[
        Flag, says("whether changes are refused"), Metric("read_only", summary="1 when changes are refused.")
    ]
    frozen: Annotated[Flag, says("whether changes wait for a thaw")]
    freeze: Freeze
    memory: Memory
    inodes: Inodes
    gc: Gc
    throttle: Throttle
    journal: Journal
    space: Space
    poll: Poll
    requests: Annotated[
        dict[str, Timing],
        says("FUSE requests by kind"),
        Metric("request_seconds", labels=("request",), summary="Duration of requests."),
    ]
    waits: Annotated[
        dict[str, Timing],
        says("waits by cause: `log`, `memory`, `io`, `gc`, `space`, `commit`, `throttle`, `thaw`"),
        Metric("wait_seconds", labels=("cause",), summary="Duration of waits by cause."),
    ]
    waits_by_request: Annotated[
        dict[str, dict[str, Totals]],
        says("waits by kind of request or background task (`inodegc 0`, `other`), and by cause"),
        Metric("request_wait", labels=("request", "cause"), summary="Waits by request and cause"),
    ]
    timeline: Timeline
    reclaim_context: ReclaimContext
    corruptions_total: Annotated[Total, says("damaged metadata found by operations"), Metric("corruptions")]


def encode(statistics: msgspec.Struct) -> dict[str, Any]:
    """The object that is sent and printed. Paths in it may contain surrogates (bytes that are not UTF-8)."""
    found: dict[str, Any] = msgspec.to_builtins(statistics, str_keys=True)
    return found


def decode(answer: object, mountpoint: str) -> Statistics:
    """Decode the answer of the daemon behind `mountpoint`. ControlError, in one line, for another version."""
    check_schema(answer, mountpoint)
    try:
        return msgspec.convert(answer, Statistics, str_keys=True)
    except msgspec.ValidationError as error:
        raise ControlError(f"{mountpoint}: the daemon's statistics cannot be read: {error}") from None


def check_schema(answer: object, mountpoint: str) -> None:
    """ControlError when the daemon's answer has another version than this program reads."""
    found = answer if isinstance(answer, dict) else {}
    schema = found.get("schema")
    if schema != SCHEMA:
        spoken = "no version" if schema is None else f"version {schema}"
        other = found.get("version")
        program = f"deferfs {other}" if isinstance(other, str) else "another version of deferfs"
        raise ControlError(
            f"{mountpoint}: its daemon is {program}, whose statistics have {spoken}, but this program reads version "
            f"{SCHEMA}: unmount and mount it with this program (deferfs stat --json prints what the daemon says)"
        )
