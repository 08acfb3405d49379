"""The statistics of a mount as text: rows below 80 columns, units in every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from deferfs.cli.output import counted
from deferfs.contract.inode_report import InodeReport
from deferfs.contract.statistics import Statistics, Timing, Totals
from deferfs.units import format_duration, format_ns, format_size

COLUMNS_MAX = 79
"""Longest line, in columns."""
BAR_MAX = 40
"""Longest bar of a histogram, in columns."""


def stat_lines(statistics: Statistics) -> Iterator[str]:
    """All lines of `deferfs stat`."""
    yield from _header(statistics)
    for line in _state(statistics):
        yield line[:COLUMNS_MAX]
    yield from activity_lines(statistics)
    yield from _histogram("inactivation", statistics.gc.inactivation)
    yield from _histogram("throttled", statistics.waits["throttle"])


def activity_lines(statistics: Statistics) -> Iterator[str]:
    """What foreground requests did and where they waited."""
    yield from _timings("request", statistics.requests)
    yield from _timings("wait for", statistics.waits)
    yield from _causes(statistics.waits_by_request)


def gc_line(statistics: Statistics) -> str:
    """The state of the inode garbage collector."""
    gc = statistics.gc
    return (
        f"gc       queued {gc.queued} ({format_size(gc.pending_bytes)}, "
        f"oldest {gc.oldest_seconds:.1f} s)  done {gc.inactivated_total}  "
        f"cancelled {gc.cancelled_total}"
    )


def _header(statistics: Statistics) -> Iterator[str]:
    yield f"{statistics.mountpoint}"
    yield f"image    {statistics.image}"
    yield (
        f"daemon   pid {statistics.pid}  up {format_duration(statistics.uptime_seconds)}  "
        f"version {statistics.version} ({'compiled' if statistics.compiled else 'plain Python'})  "
        f"evict {statistics.evict}"
    )


def _state(statistics: Statistics) -> Iterator[str]:
    if conditions := ", ".join(_conditions(statistics)):
        yield f"now      {conditions}"
    yield from _memory(statistics)
    yield from _reclaim(statistics)
    yield from _storage(statistics)
    poll = statistics.poll
    yield (
        f"polling  for {format_ns(poll.window_ns)} of {poll.limit_us} us  hits {poll.hits_total}"
        f"  misses {poll.misses_total}  spent {format_ns(poll.spent_ns_total)}"
    )


def _conditions(statistics: Statistics) -> Iterator[str]:
    """Exceptional states, shown first: frozen, read-only, aborted, quarantine."""
    gc, inodes = statistics.gc, statistics.inodes
    if statistics.frozen:
        freeze = statistics.freeze
        since = datetime.fromtimestamp(freeze.since_ns // 1_000_000_000).astimezone()
        limit = f", at most {freeze.limit_seconds:g} s" if freeze.limit_seconds else ""
        yield f"frozen since {since:%H:%M:%S} ({format_duration(freeze.seconds)}{limit})"
    elif gc.stopped:
        yield "inodegc stopped"
    if statistics.journal.aborted:
        yield "log ABORTED: read-only, see the log"
    elif statistics.read_only:
        yield "read-only"
    if statistics.corruptions_total:
        yield f"corruption found {statistics.corruptions_total} times: run fsck"
    if inodes.quarantined:
        yield f"{counted(inodes.quarantined, 'inode')} in quarantine"
    if statistics.timeline.file:
        yield "recording a timeline"


def _memory(statistics: Statistics) -> Iterator[str]:
    memory, inodes = statistics.memory, statistics.inodes
    yield (
        f"memory   {format_size(memory.used_bytes)} of {format_size(memory.budget_bytes)}"
        f"  inodes {format_size(memory.inode_bytes)}  blocks {format_size(memory.block_bytes)}"
    )
    yield (
        f"         reserve {format_size(memory.reserve_bytes)}  dirty {format_size(memory.dirty_bytes)}"
        f"  buffers {format_size(memory.buffer_bytes)}  direct reclaims {memory.direct_reclaims_total}"
    )
    yield f"         file data on its way to the disk {format_size(memory.unflushed_bytes)}"
    yield (
        f"         resident {format_size(memory.resident_bytes)}, at most"
        f" {format_size(memory.resident_highest_bytes)} of {format_size(memory.promised_bytes)} promised"
    )
    yield (f"inodes   cached {inodes.cached}  active {inodes.active}  idle {inodes.idle}  queued {inodes.queued}")
    malformed = sum(inodes.anomalies.values())
    yield f"         inactivating {inodes.inactivating}  quarantined {inodes.quarantined}  malformed {malformed}"


def _reclaim(statistics: Statistics) -> Iterator[str]:
    gc, throttle, reclaim = statistics.gc, statistics.throttle, statistics.reclaim_context
    yield gc_line(statistics)
    pace = f" (at most {gc.rate:g}/s)" if gc.rate else ""
    yield (f"         workers {gc.workers}{pace}  queued in all {gc.queued_total}  batches {gc.batches_total}")
    yield (
        f"         queued in memory {gc.in_core} of at most {gc.in_core_max}  in the orphan table alone {gc.in_table}"
    )
    yield f"         errors {gc.errors_total}  to be tried again {gc.delayed}"
    yield (
        f"         access times owed {gc.times_owed} of at most {gc.times_owed_max}"
        f"  written {gc.times_paid_total} by {gc.time_updates_total} updates of their own"
    )
    if len(gc.queues) > 1:
        for number, queue in enumerate(gc.queues):
            yield (
                f"         queue {number}: {queue.depth} ({format_size(queue.bytes)},"
                f" oldest {queue.oldest_seconds:.1f} s)"
            )
    yield (
        f"throttle waiting {throttle.waiting}  after the deadline {throttle.expired_total}"
        f"  killed {throttle.killed_total}"
    )
    yield (
        f"reclaim  violations {reclaim.violations_total}  lock order cycles {reclaim.lock_order_cycles}"
        f"  broken {reclaim.circular_waits_broken_total}"
    )


def _storage(statistics: Statistics) -> Iterator[str]:
    journal, space = statistics.journal, statistics.space
    yield (
        f"journal  {journal.used_blocks} of {journal.blocks} blocks"
        f"  running {journal.running_blocks}  tid {journal.tid}"
    )
    yield f"         commits {journal.commits_total}  checkpoints {journal.checkpoints_total}"
    size = space.block_size
    yield (
        f"space    {format_size(space.free_blocks * size)} free of {format_size(space.blocks * size)}"
        f"  pending free {format_size(space.pending_free_blocks * size)}  orphans {space.orphans}"
    )
    yield (
        f"         preallocated files {space.preallocated_files}  trimmed {space.preallocations_trimmed_total}"
        f"  refused (ENOSPC) {space.refused_total}"
    )


def _timings(title: str, timings: Mapping[str, Timing]) -> Iterator[str]:
    rows = [(name, timing) for name, timing in timings.items() if timing.count]
    if not rows:
        return
    yield ""
    yield f"{title:<16}{'count':>12}{'mean':>12}{'max':>12}{'total':>12}"
    rows.sort(key=lambda row: -row[1].total_ns)
    for name, timing in rows:
        yield (
            f"{name:<16}{timing.count:>12}{format_ns(timing.mean_ns):>12}"
            f"{format_ns(timing.max_ns):>12}{format_ns(timing.total_ns):>12}"
        )


def _causes(waits: Mapping[str, Mapping[str, Totals]]) -> Iterator[str]:
    """Where the waits of each kind of request went, the most expensive first."""
    rows = [(request, cause, timing) for request, causes in waits.items() for cause, timing in causes.items()]
    if not rows:
        return
    yield ""
    yield f"{'of request':<16}{'for':<12}{'count':>12}{'mean':>12}{'max':>12}{'total':>12}"
    rows.sort(key=lambda row: -row[2].total_ns)
    for request, cause, timing in rows:
        yield (
            f"{request:<16}{cause:<12}{timing.count:>12}{format_ns(timing.mean_ns):>12}"
            f"{format_ns(timing.max_ns):>12}{format_ns(timing.total_ns):>12}"
        )


def _histogram(title: str, timing: Timing) -> Iterator[str]:
    """A row for each power of two, with a bar."""
    counts = timing.log2_ns
    if not counts:
        return
    yield ""
    yield f"{title:<16}{'count':>12}"
    most = max(counts.values())
    bound = min(counts)
    while bound <= max(counts):
        count = counts.get(bound, 0)
        yield f"{'< ' + format_ns(bound):<16}{count:>12}  {'#' * -(-count * BAR_MAX // most)}".rstrip()
        bound *= 2


def inode_lines(report: InodeReport) -> Iterator[str]:
    """All lines of `deferfs stat --inode`."""
    record, memory = report.record, report.memory
    yield f"inode    {report.inode}"
    if record is None:
        yield "record   none: the number is not in use"
    else:
        slot = "" if record.orphan_slot is None else f"  orphan slot {record.orphan_slot}"
        yield (
            f"record   links {record.links}  size {format_size(record.size_bytes)}  blocks {record.blocks}"
            f"  generation {record.generation:#x}{slot}"
        )
    if memory is None:
        yield "memory   not cached"
    else:
        references = memory.references
        yield f"state    {memory.state}  failures {memory.failures}  pending blocks {memory.pending_blocks}"
        yield (
            f"held by  lookups {references.lookups}  handles and operations {references.handles_and_operations}"
            f"  passive {references.passive}"
        )
        if memory.queue is not None:
            queue = memory.queue
            yield f"queue    {queue.number}  behind {queue.position}  for {memory.queued_seconds or 0:.1f} s"
    for index, reason in enumerate(report.reasons):
        yield f"{'why' if not index else '':<9}{reason}"
