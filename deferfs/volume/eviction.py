"""Sources of eviction: direct reclaim, inodes that became due, the last close; and trims of blocks past EOF.

**Invariants**
- Inodes that the policy does not wait for are disposed of without a wait: `dispose` and `release` are plain functions,
  and return what remains to be waited for.
- While inodegc is stopped everything is queued, under either policy.
- A trim frees only what lies past EOF when its plan runs, so it is harmless for a file that is open, being written to,
  or gone. Others run between two of them when a turn has lasted long enough (`turns.py`).
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from deferfs.errors import FsError
from deferfs.limits import (
    PREALLOCATION_LIFETIME_SECONDS,
    SHRINK_BATCH,
    TRIM_LOOK_SECONDS_MIN,
    TRIM_LOOKS_PER_LIFETIME,
)
from deferfs.reclaim.inode import ActiveReference, InCoreInode
from deferfs.reclaim.lockdep import FS_RECLAIM
from deferfs.store.plan import Plan
from deferfs.volume import files
from deferfs.volume.log_space import CircularWaitError
from deferfs.volume.waits import Reschedule, Task, TrimsDue

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

log = logging.getLogger(__name__)
File = tuple[int, int]
"""(inode, generation): the number may belong to another inode when its turn comes."""


def _nothing() -> None:
    """Default of a callback: there is no driver to notify."""


class Eviction:
    """Handles inodes that lose their last active reference, and blocks past EOF."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._volume = engine.volume
        self.direct_reclaims_total = 0
        self.trimmed_total = 0
        self.to_trim: dict[File, None] = {}
        """Files that wait to be trimmed in the background."""
        self.on_trim: Callable[[], None] = _nothing
        """A file was added to `to_trim`, or a look for idle ones is due."""
        self.trims = True
        """False once the mount ends: nothing more is trimmed."""
        self.lifetime_seconds: float = PREALLOCATION_LIFETIME_SECONDS
        """How long blocks past EOF are kept after the last write that made the file grow."""
        self._look_asked = False

    # --- placing ---
    def dispose(self, inodes: list[InCoreInode]) -> list[InCoreInode]:
        """Hand inodes to the evict policy; those that the caller has to wait for (`wait_for`). While inodegc is
        stopped, all of them wait in its queues."""
        if self._engine.cleanup.stopped:
            for inode in inodes:
                self._volume.gc.enqueue(inode)
            return []
        return self._volume.policy.dispose(inodes)

    def wait_for(self, inodes: list[InCoreInode]) -> Task[None]:
        """Inline: inactivate these, one after the other."""
        engine = self._engine
        for inode in inodes:
            engine.checker.might_wait("gc")
            with engine.measure("gc"):
                try:
                    yield from engine.cleanup.inline(inode)
                except CircularWaitError:
                    if self._volume.inodes.interrupt(inode):
                        self._volume.gc.enqueue(inode)

    def release(self, reference: ActiveReference) -> Task[None] | None:
        """Drop the reference of a closed handle: the last one of a deleted file, or of one with blocks past EOF, leaves
        work for the policy. Returns a task to be waited for, if any."""
        inode = reference.inode
        due = reference.release()
        if due is not None:
            waiting = self.dispose([due])
            return self.wait_for(waiting) if waiting else None
        if not inode.preallocated or inode.active_tokens or inode.orphan:
            return None
        if self._volume.policy.waits and not self._engine.cleanup.stopped:
            return self._trim_inline(inode.ino, inode.generation)
        self.trim_later(inode.ino, inode.generation)
        return None

    # --- memory ---
    @property
    def defers(self) -> bool:
        """Whether the shrinkers leave what an inode owes to inodegc; else it is waited for."""
        return self._engine.cleanup.stopped or not self._volume.policy.waits

    def direct_reclaim(self, wanted_bytes: int) -> Task[int]:
        """Run the shrinkers on behalf of an operation that needs memory; wait if the policy says so. Bytes freed."""
        self.direct_reclaims_total += 1
        self._engine.checker.might_need("memory")
        with self._engine.checker.enter("direct_reclaim"):
            return (yield from self.shrink(wanted_bytes))

    def background_reclaim(self, wanted_bytes: int) -> Task[int]:
        """The same by a task of its own, which may wait: operations wait for it only for want of memory. Bytes
        freed."""
        with self._engine.checker.holding("background reclaim", FS_RECLAIM):
            return (yield from self.shrink(wanted_bytes))

    def shrink(self, wanted_bytes: int) -> Task[int]:
        """Run the shrinkers: inodes first (they may hold blocks dirty), then blocks. Bytes freed."""
        volume = self._volume
        freed, due = volume.inodes.shrink(wanted_bytes, SHRINK_BATCH, defer=self.defers)
        self._engine.payment.noted()
        if freed < wanted_bytes:
            freed += self._engine.store.cache.shrink(wanted_bytes - freed)
        if due:
            yield from self.wait_for(self.dispose(due))
        return freed

    # --- blocks past EOF ---
    def trim_later(self, ino: int, generation: int) -> None:
        """Trim a file in the background."""
        self.to_trim[ino, generation] = None
        self.on_trim()

    def _trim_inline(self, ino: int, generation: int) -> Task[None]:
        self._engine.checker.might_wait("gc")
        with self._engine.measure("gc"):
            yield from self.trim(ino, generation)

    def set_lifetime(self, seconds: float) -> None:
        """Free the blocks past EOF of files that have not grown for `seconds`; of those overdue already, at once."""
        self.lifetime_seconds = seconds
        self._look_asked = True
        self.on_trim()

    @property
    def trims_due(self) -> bool:
        """Whether the background task has something to do before its next look for idle files."""
        return self._look_asked or (bool(self.to_trim) and not self._engine.cleanup.stopped)

    def await_trims(self) -> Task[None]:
        """What the background task does between two rounds of `trim_queued`: it waits until files are queued or a look
        for idle ones is due, and takes that look."""
        if self.to_trim and not self._engine.cleanup.stopped:
            return
        yield TrimsDue(self, max(TRIM_LOOK_SECONDS_MIN, self.lifetime_seconds / TRIM_LOOKS_PER_LIFETIME))
        self._look_asked = False
        self._queue_idle()

    def trim_queued(self) -> Task[None]:
        """Trim the queued files, unless inodegc is stopped."""
        cleanup = self._engine.cleanup
        while self.to_trim and self.trims and not cleanup.stopped:
            file = next(iter(self.to_trim))
            del self.to_trim[file]
            cleanup.busy += 1
            try:
                yield from self.trim(*file)
            finally:
                cleanup.busy -= 1
                cleanup.told()
            yield from self._engine.turns.end(background=True)

    def _queue_idle(self) -> None:
        """Queue the files whose blocks past EOF have outlived their time."""
        before = self._volume.store.clock() - int(self.lifetime_seconds * 1e9)
        for file, grown_ns in self._volume.past_eof.items():
            if grown_ns > before:
                break
            self.to_trim[file] = None

    def trim(self, ino: int, generation: int) -> Task[None]:
        """Free a file's blocks past EOF. After an error they are left to its inactivation."""
        volume = self._volume

        def trim(plan: Plan) -> bool:
            return files.trim(plan, volume, ino, generation)

        try:
            while not (yield from self._engine.operation(trim, reserve=True)):
                if not self.trims:
                    return
                yield Reschedule()
            self.trimmed_total += 1
        except FsError as error:
            volume.past_eof.pop((ino, generation), None)
            if error.errno != errno.ESTALE:
                log.warning("trimming inode %d failed: %s", ino, error)

    def trim_for_space(self, blocks: int) -> Task[None]:
        """Trim files, first those that have not grown for the longest time, until `blocks` blocks are pending."""
        space, past_eof = self._engine.store.space, self._volume.past_eof
        while past_eof and space.pending_blocks < blocks:
            file = next(iter(past_eof))
            del past_eof[file]
            yield from self.trim(*file)
            yield from self._engine.turns.end(background=False)
