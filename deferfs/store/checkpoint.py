"""The checkpoint job: write committed images home, then advance the tail of the log.

The first half alone makes memory clean: a block can be evicted when its home write has returned. Freeing log space
takes two more barriers, so that is done only when log space is needed.
"""

from __future__ import annotations

import errno

from deferfs.errors import FsError
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.store.io import Flush, Job, Write, runs_of
from deferfs.store.journal import Home, Journal

_WRITE_BLOCKS = 64
"""Blocks at most that are encoded and written home at once: one request where they are adjacent."""


def checkpoint(journal: Journal, now_ns: int, *, clean: bool = False) -> Job[int]:
    """Write all committed transactions home and free their log space; returns the log blocks freed.

    Order: images home, flush, superblock with the new tail, flush; only then may the log space be written again. With
    `clean` the superblock is also marked clean: the caller guarantees that nothing is uncommitted.
    """
    return (yield from _alone(journal, _checkpoint(journal, now_ns, clean)))


def bring_home(journal: Journal) -> Job[int]:
    """Write all committed transactions home, only to make their memory clean; the log keeps them. Returns the number of
    blocks to be written.

    No barrier: the log, whose tail does not move, would restore them after a crash. Blocks freed meanwhile are held
    back to the end, as no home write may be in flight to a block that is reused.
    """
    return (yield from _alone(journal, _bring_home(journal)))


def _alone(journal: Journal, job: Job[int]) -> Job[int]:
    journal.require_working()
    journal.begin_checkpoint()
    try:
        result = yield from journal.unless_aborted(job)
    except OSError as error:
        journal.abort(error)
        raise FsError(errno.EIO, f"checkpoint failed: {error}") from error
    finally:
        journal.store.space.release(journal.end_checkpoint())
    return result


def _bring_home(journal: Journal) -> Job[int]:
    count = len(journal.pending_home)
    if journal.committed:
        yield from _write_home(journal, journal.committed[-1].tid)
    journal.wrote_back()
    return count


def _checkpoint(journal: Journal, now_ns: int, clean: bool) -> Job[int]:
    store = journal.store
    last = journal.committed[-1].tid if journal.committed else 0
    count = len(journal.committed)
    yield from _write_home(journal, last)
    yield Flush()
    tail, tail_tid = journal.tail_after(count)
    changes: dict[str, object] = {"journal_tail": tail, "tail_tid": tail_tid, "written_ns": now_ns}
    if clean:
        # no running or committing transaction is left; the next one gets this id
        changes["tail_tid"] = journal.running.tid
        changes["state"] = store.superblock.state | STATE_CLEAN
    yield from store.write_superblock(**changes)
    return journal.advance(count)


def _write_home(journal: Journal, last: int) -> Job[None]:
    """Write every image committed up to `last` that is still the newest.

    A block counts as home when its write has returned: reads find it there, and the cache may evict it, long before the
    flush after which the log may drop it, too.
    """
    fmt, pending = journal.store.fmt, journal.pending_home
    addresses = sorted(address for address, (tid, _) in pending.items() if tid <= last)
    for first, length in runs_of(addresses):
        for at in range(first, first + length, _WRITE_BLOCKS):
            for start, images in _runs_to_write(journal, at, min(at + _WRITE_BLOCKS, first + length), last):
                yield Write(start * fmt.block_size, [obj.encode(fmt, start + i) for i, (_, obj) in enumerate(images)])
                journal.came_home(start, images)


def _runs_to_write(journal: Journal, first: int, end: int, last: int) -> list[tuple[int, list[Home]]]:
    """Runs (address, images) still to be written among the blocks from `first` to `end`: some may have been freed, or
    committed again, during this job."""
    runs: list[tuple[int, list[Home]]] = []
    following = -1
    for address in range(first, end):
        image = journal.pending_home.get(address)
        if image is None or image[0] > last:
            continue
        if address != following:
            runs.append((address, []))
        runs[-1][1].append(image)
        following = address + 1
    return runs
