"""The checkpoint job: write committed images home, then advance the tail of the log.

The first half alone gives memory back: a block may leave the cache when its home write has returned. Log space takes
two barriers more, so that it is only given back when it is wanted.
"""

from __future__ import annotations

import errno

from deferfs.errors import FsError
from deferfs.ondisk.superblock import STATE_CLEAN
from deferfs.store.io import Flush, Job, Write, runs_of
from deferfs.store.journal import Home, Journal

_WRITE_BLOCKS = 64


def checkpoint(journal: Journal, now_ns: int, *, clean: bool = False) -> Job[int]:
    """Bring all committed transactions home and free their log space; returns the log blocks freed.

    Order: images home, flush, superblock with the new tail, flush; only then may the log space be written again. With
    `clean` the superblock is also marked clean: the caller guarantees that nothing is uncommitted.
    """
    return (yield from _alone(journal, _checkpoint(journal, now_ns, clean)))


def bring_home(journal: Journal) -> Job[int]:
    """Bring all committed transactions home, for the memory of their images; the log keeps them. Returns how many
    blocks were to be written.

    No barrier: the log, whose tail stays where it is, brings back what a crash takes. What is freed meanwhile waits for
    the end, as no write may be on its way then to a block that is used again.
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

    A block has come home when its write has returned: a read finds it there, and the cache may let go of it, long
    before the flush after which the log may let go of it too.
    """
    fmt, pending = journal.store.fmt, journal.pending_home
    addresses = sorted(address for address, (tid, _) in pending.items() if tid <= last)
    for first, length in runs_of(addresses):
        for at in range(first, first + length, _WRITE_BLOCKS):
            for start, images in _runs_to_write(journal, at, min(at + _WRITE_BLOCKS, first + length), last):
                yield Write(start * fmt.block_size, [obj.encode(fmt, start + i) for i, (_, obj) in enumerate(images)])
                journal.came_home(start, images)


def _runs_to_write(journal: Journal, first: int, end: int, last: int) -> list[tuple[int, list[Home]]]:
    """(address, images) of what is still to be written of the blocks from `first` to `end`: some were freed, or
    committed again, while this job was writing."""
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
