"""Why has this inode not been freed? Everything known about one inode number, and the reasons in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deferfs.contract.inode_report import InCore, InodeReport, QueuePosition, Record, References
from deferfs.contract.statistics import SCHEMA
from deferfs.errors import FsError, without_traceback
from deferfs.limits import INACTIVATION_RETRIES_MAX
from deferfs.ondisk.inode import Inode
from deferfs.reclaim.inode import InCoreInode
from deferfs.reclaim.states import State
from deferfs.volume.volume import inode_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deferfs.mount.runtime.runtime import Runtime


async def explain(runtime: Runtime, ino: int) -> InodeReport:
    """A report on inode number `ino`.

    It takes no reference and changes nothing; the inode may have changed by the time the report is read.
    """
    record: Inode | None = None
    problem: FsError | None = None
    try:
        record = await runtime.run_reserved(lambda plan: inode_of(plan, ino))
    except FsError as error:
        problem = without_traceback(error)
    inode = runtime.volume.inodes.table.get(ino)
    return InodeReport(
        schema=SCHEMA,
        inode=ino,
        record=_record(record),
        memory=_memory(runtime, inode),
        reasons=list(_reasons(runtime, inode, record, problem)),
    )


def _record(record: Inode | None) -> Record | None:
    """The record on disk or in the cache; None when the number is not in use."""
    if record is None:
        return None
    return Record(
        generation=record.generation,
        links=record.nlink,
        size_bytes=record.size,
        blocks=record.blocks,
        orphan_slot=record.orphan_slot - 1 if record.orphan_slot else None,
    )


def _memory(runtime: Runtime, inode: InCoreInode | None) -> InCore | None:
    """The in-core inode; None when there is none."""
    if inode is None:
        return None
    position = _position(inode)
    gc = runtime.volume.gc
    return InCore(
        state=inode.state.name,
        generation=inode.generation,
        references=References(lookups=inode.lookups, handles_and_operations=inode.active_tokens, passive=inode.passive),
        orphan=inode.orphan,
        blocks_past_eof=inode.preallocated,
        unwritten_access_time=inode.lazy_atime != 0,
        pending_blocks=inode.pending_blocks,
        failures=inode.failures,
        queue=None if position is None else QueuePosition(number=position[0], position=position[1]),
        queued_seconds=max(0, gc.clock() - inode.queued_ns) / 1e9 if inode.state is State.QUEUED else None,
        retry_in_seconds=_retry_in(runtime, inode),
    )


def _position(inode: InCoreInode) -> tuple[int, int] | None:
    """(queue, inodes before it in the queue); None when it is in no queue."""
    queue = inode.queue
    if queue is None or not inode.waiting:
        return None
    before = 0
    at = queue.head
    while at is not None and at is not inode:
        before += at.waiting
        at = at.following
    return queue.number, before


def _retry_in(runtime: Runtime, inode: InCoreInode) -> float | None:
    """Seconds until a failed inactivation is retried."""
    gc = runtime.volume.gc
    for due_ns, _, other in gc.delayed:
        if other is inode:
            return max(0, due_ns - gc.clock()) / 1e9
    return None


def _reasons(
    runtime: Runtime, inode: InCoreInode | None, record: Inode | None, problem: FsError | None
) -> Iterator[str]:
    if record is None:
        yield f"it is free, or was never in use ({problem})" if inode is None else f"its record: {problem}"
    elif record.nlink:
        yield f"it has {record.nlink} names: only the in-core inode can go"
    if inode is None:
        if record is not None and not record.nlink:
            stopped = "; inodegc is stopped" if runtime.workers.stopped else ""
            yield f"it waits in the orphan table, not in memory, until inodegc reloads it{stopped}"
        elif record is not None:
            yield "it is not in memory"
        return
    if inode.lookups:
        yield f"the kernel refers to it: {inode.lookups} lookups not forgotten yet"
        if runtime.forgets.waiting:
            yield f"{runtime.forgets.waiting} FORGETs are queued and not counted yet"
    if inode.active_tokens:
        yield f"{inode.active_tokens} open handles or operations under way hold it"
    yield from _state_reasons(runtime, inode)


def _state_reasons(runtime: Runtime, inode: InCoreInode) -> Iterator[str]:
    """What an inode without active references waits for."""
    state = inode.state
    if state is State.IDLE:
        needs = "; eviction will need an inactivation" if inode.needs_inactivation else ""
        yield f"it is not in use; it is cached until memory is needed{needs}"
    elif state is State.QUEUED:
        position = _position(inode)
        place = "out of turn" if position is None else f"in queue {position[0]} behind {position[1]} others"
        stopped = "; inodegc is stopped" if runtime.workers.stopped else ""
        yield f"it waits for inodegc {place}{stopped}"
    elif state is State.INACTIVATING:
        yield f"its inactivation is running: {inode.pending_blocks} blocks left to free"
    elif state is State.NEED_INACTIVE:
        wait = _retry_in(runtime, inode)
        if wait is not None:
            yield f"its inactivation failed {inode.failures} times; next retry in {wait:.1f} s"
        else:
            yield "it is about to be inactivated"
    elif state is State.QUARANTINED:
        yield (
            f"its inactivation failed {max(inode.failures, INACTIVATION_RETRIES_MAX)} times: in quarantine, see the"
            " log; retry with deferfs ctl DIR gc=retry, see also deferfs fsck"
        )
