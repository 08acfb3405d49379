"""The waits of the engine. A task is a generator that yields them; a driver resumes it when the wait is over.

**Invariants**
- A task yields with nothing held but what `Holding` names: pinned blocks, and for memory its log space.
- `over` has no side effects and is authoritative: a task is resumed when it returns True, or, where `seconds_max` is
  finite, when that time has passed. Every task checks its condition again, so spurious wake-ups are harmless and lost
  ones are not.
- A wait does not say how it ends: the mount wakes its own tasks and awaits an event, the synchronous driver does the
  work itself, the explorer runs something else first.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from deferfs.store.io import Job
from deferfs.store.journal import Journal
from deferfs.store.store import Store
from deferfs.store.transaction import Grant

if TYPE_CHECKING:
    from deferfs.reclaim.debts import TimeDebts
    from deferfs.volume.cleanup import Cleanup
    from deferfs.volume.eviction import Eviction
    from deferfs.volume.freezing import Freezing
    from deferfs.volume.throttle import Ticket
    from deferfs.volume.turns import Turns
    from deferfs.volume.workers import Workers
    from deferfs.volume.write_back import WriteBack
    from deferfs.volume.write_out import WriteOut

T = TypeVar("T")


class Wait:
    """Base of all waits. `seconds_max`: timeout, after which the task continues."""

    __slots__ = ("seconds_max",)

    def __init__(self, seconds_max: float = inf) -> None:
        self.seconds_max = seconds_max

    def over(self) -> bool:
        """Whether the task can continue. True for waits that the driver performs itself."""
        return True


Task = Generator[Wait, Any, T]
"""A task of the engine: yields waits and returns its result; a driver's errors are thrown into it."""


class ReadBytes(Wait):
    """Bytes of the device at the moment of the answer. None when the driver had to wait for them: they may be stale, so
    the operation runs again. `again`: it has, and the answer must be bytes."""

    __slots__ = ("again", "length", "offset")

    def __init__(self, offset: int, length: int, *, again: bool) -> None:
        super().__init__()
        self.offset = offset
        self.length = length
        self.again = again


class ReadData(Wait):
    """Bytes of file data; they may take a while, and freed blocks may be reused meanwhile."""

    __slots__ = ("length", "offset")

    def __init__(self, offset: int, length: int) -> None:
        super().__init__()
        self.offset = offset
        self.length = length


class Barrier(Wait):
    """Make everything written to the device so far durable. OSError on failure."""

    __slots__ = ()


class Exclusive(Wait):
    """Run a job that writes the image while no commit or checkpoint runs or begins; answered with its result."""

    __slots__ = ("job",)

    def __init__(self, job: Job[None]) -> None:
        super().__init__()
        self.job = job


class Reschedule(Wait):
    """Yield between two parts of a request, or two transactions of cleanup, so that other tasks run."""

    __slots__ = ()


class StoodBack(Wait):
    """Requests have had a while to themselves, or cleanup cannot wait any longer."""

    __slots__ = ("cleanup",)

    def __init__(self, cleanup: Cleanup, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.cleanup = cleanup

    def over(self) -> bool:
        return self.cleanup.waited_for() or self.cleanup.stopped


class Gathered(Wait):
    """A batch of inodes has come together, or is not to gather any longer."""

    __slots__ = ("workers",)

    def __init__(self, workers: Workers, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.workers = workers

    def over(self) -> bool:
        return self.workers.gathered


class Paced(Wait):
    """The pace allows the next background transaction, or cleanup is not to wait for it."""

    __slots__ = ("turns",)

    def __init__(self, turns: Turns, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.turns = turns

    def over(self) -> bool:
        return self.turns.may_begin()


class EntriesDropped(Wait):
    """The kernel has been asked to drop directory entries that keep inodes in core, about `bytes_wanted` of them.
    Answered with the bytes that this frees once they are forgotten; 0 when it has none to drop."""

    __slots__ = ("bytes_wanted",)

    def __init__(self, bytes_wanted: int) -> None:
        self.bytes_wanted = bytes_wanted


class Listen(Wait):
    """Read the requests that the kernel has queued: the last reference to a deleted file may be among them."""

    __slots__ = ()


class Granted(Wait):
    """Until a grant of log space is granted or refused. Needs a commit and a checkpoint."""

    __slots__ = ("grant", "journal")

    def __init__(self, journal: Journal, grant: Grant) -> None:
        super().__init__()
        self.journal = journal
        self.grant = grant

    def over(self) -> bool:
        return self.grant.granted or self.grant.refused or self.journal.aborted is not None


class Committed(Wait):
    """Until transaction `tid` is durable or the journal is aborted."""

    __slots__ = ("journal", "tid")

    def __init__(self, journal: Journal, tid: int) -> None:
        super().__init__()
        self.journal = journal
        self.tid = tid

    def over(self) -> bool:
        return self.journal.committed_tid >= self.tid or self.journal.aborted is not None


class Released(Wait):
    """Until some freed blocks can be reused. Needs a commit, and the end of a checkpoint in progress."""

    __slots__ = ("seen", "store")

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.seen = store.space.epoch

    def over(self) -> bool:
        space = self.store.space
        return space.epoch != self.seen or not space.pending_blocks or self.store.journal.aborted is not None


class LessDirty(Wait):
    """Until at most `bytes_max` are dirty, or nothing is left to write home. Needs a checkpoint, and a commit before
    it when nothing is committed."""

    __slots__ = ("bytes_max", "store", "write_back")

    def __init__(self, store: Store, write_back: WriteBack, bytes_max: int, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.store = store
        self.write_back = write_back
        self.bytes_max = bytes_max

    def over(self) -> bool:
        return self.store.dirty_bytes <= self.bytes_max or not self.possible()

    def possible(self) -> bool:
        """Whether anything can still be written home."""
        journal = self.store.journal
        left = journal.pending_home or not journal.running.empty or journal.committing is not None
        return bool(left) and journal.aborted is None and not self.write_back.stopped


class DataFlushed(Wait):
    """Until unflushed file data is within its limit, or the journal is aborted. Needs a barrier."""

    __slots__ = ("write_out",)

    def __init__(self, write_out: WriteOut) -> None:
        super().__init__()
        self.write_out = write_out

    def over(self) -> bool:
        return not self.write_out.too_much


class Thawed(Wait):
    """Until the freeze ends. FsError(EINTR) when the caller is being killed."""

    __slots__ = ("freezing",)

    def __init__(self, freezing: Freezing) -> None:
        super().__init__()
        self.freezing = freezing

    def over(self) -> bool:
        return not self.freezing.begun


class Cleaned(Wait):
    """Until inodegc has made a step or has nothing left to do; unless `barrier`, also when it is stopped."""

    __slots__ = ("barrier", "cleanup", "seen")

    def __init__(self, cleanup: Cleanup, seconds_max: float = inf, *, barrier: bool = False) -> None:
        super().__init__(seconds_max)
        self.cleanup = cleanup
        self.barrier = barrier
        self.seen = cleanup.steps

    def over(self) -> bool:
        cleanup = self.cleanup
        if cleanup.steps != self.seen or not (cleanup.has_work or cleanup.owes):
            return True
        return cleanup.stopped and not self.barrier


class Drained(Wait):
    """Until no inactivation and no trim is running."""

    __slots__ = ("cleanup",)

    def __init__(self, cleanup: Cleanup) -> None:
        super().__init__()
        self.cleanup = cleanup

    def over(self) -> bool:
        return not self.cleanup.busy


class DebtsFit(Wait):
    """Until an inode that owes an access time can leave core. Needs owed access times to be written."""

    __slots__ = ("cleanup", "debts")

    def __init__(self, cleanup: Cleanup, debts: TimeDebts, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.cleanup = cleanup
        self.debts = debts

    def over(self) -> bool:
        return not self.debts.full or self.cleanup.stopped or not self.cleanup.owes


class TrimsDue(Wait):
    """Until files wait to be trimmed, or a look for idle ones is due at once; a look is due when it times out, too."""

    __slots__ = ("eviction",)

    def __init__(self, eviction: Eviction, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.eviction = eviction

    def over(self) -> bool:
        return self.eviction.trims_due


class Admitted(Wait):
    """Until the backlog of inodegc admits one more operation. FsError(EINTR) when thread `pid` is being killed."""

    __slots__ = ("pid", "ticket")

    def __init__(self, ticket: Ticket, pid: int, seconds_max: float) -> None:
        super().__init__(seconds_max)
        self.ticket = ticket
        self.pid = pid

    def over(self) -> bool:
        return self.ticket.admitted
