"""Durability: sync, fsync, barriers, and the bound on dirty memory.

**Invariants**
- A sync waits for everything applied before it, an fsync for the newest transaction that holds a change of its file;
  both join a commit in progress only when it holds what they wait for.
- A failed barrier is never retried: it aborts the journal.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.limits import CLEANUP_DIRTY_FRACTION, DIRTY_WAIT_SECONDS_MAX, WRITE_BACK_FACTOR
from deferfs.volume.waits import Barrier, Committed, Exclusive, LessDirty, Released, Task

if TYPE_CHECKING:
    from deferfs.store.io import Job
    from deferfs.volume.engine import Engine


class Durability:
    """Tasks that wait for commits and checkpoints."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.store

    def sync(self) -> Task[None]:
        """Make everything applied before this call durable. EIO after an abort."""
        journal = self._store.journal
        if self._store.read_only:
            return
        target = journal.running.tid if not journal.running.empty else journal.running.tid - 1
        if journal.committed_tid >= target:
            yield from self.flush()
        else:
            yield from self.through(target)

    def fsync(self, ino: int, *, data_only: bool = False) -> Task[None]:
        """Make a file durable: by the commit that holds its changes, else by a barrier. EIO after an abort."""
        tid = self._store.journal.uncommitted(ino, data_only=data_only)
        if tid:
            yield from self.through(tid)
        else:
            yield from self.flush()

    def through(self, tid: int) -> Task[None]:
        """Wait until transaction `tid` is durable. EIO when the journal is aborted first."""
        journal = self._store.journal
        if journal.committed_tid < tid:
            journal.require_working()
            self._engine.checker.might_wait("commit")
            yield Committed(journal, tid)
            if journal.committed_tid < tid:
                journal.require_working()

    def flush(self) -> Task[None]:
        """Issue a device barrier; a failure aborts the journal (EIO)."""
        journal = self._store.journal
        journal.require_working()
        self._engine.checker.might_wait("io")
        try:
            yield Barrier()
        except OSError as error:
            journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error

    def released(self) -> Task[None]:
        """Wait until some freed blocks can be reused: their transaction committed, the discard issued, and no
        checkpoint writing to them. EIO after an abort."""
        journal, space = self._store.journal, self._store.space
        seen = space.epoch
        if space.pending_blocks:
            journal.require_working()
            self._engine.checker.might_wait("checkpoint" if journal.release_later else "commit")
            yield Released(self._store)
            if space.pending_blocks and space.epoch == seen:
                journal.require_working()

    def less_dirty(self, bytes_max: int) -> Task[None]:
        """Wait until at most `bytes_max` are dirty or nothing is left to write home, for at most
        DIRTY_WAIT_SECONDS_MAX."""
        wait = LessDirty(self._store, self._engine.write_back, bytes_max, DIRTY_WAIT_SECONDS_MAX)
        if self._store.dirty_bytes <= bytes_max:
            return
        self._engine.checker.might_wait("checkpoint")
        if not wait.over():
            yield wait

    def make_up_for(self, blocks: int) -> Task[None]:
        """Wait before an operation that makes `blocks` blocks dirty, until WRITE_BACK_FACTOR times as many have been
        written home, or no more memory is dirty than operations may make so; as `less_dirty`. So a small operation does
        not wait for the dirty blocks of large ones, and the number of dirty blocks falls with each operation."""
        made_up = WRITE_BACK_FACTOR * blocks * self._store.fmt.block_size
        yield from self.less_dirty(max(self._store.memory.dirty_bytes_max, self._store.dirty_bytes - made_up))

    def within_share_of_cleanup(self) -> Task[None]:
        """Wait, as `less_dirty` does, until dirty memory is within the share of cleanup."""
        yield from self.less_dirty(self._store.memory.limit_bytes // CLEANUP_DIRTY_FRACTION)

    def exclusively(self, job: Job[None]) -> Task[None]:
        """Commit everything applied before, then run `job` while no commit or checkpoint runs or begins."""
        self._engine.checker.might_wait("checkpoint")
        yield from self.sync()
        yield Exclusive(job)
