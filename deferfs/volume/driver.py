"""The synchronous driver: runs operations and jobs on a device, and ends every wait of the engine at once, by doing
the work itself.

For tests, tools and crash exploration. It takes no decisions: those are the engine's, as in the mount.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from deferfs.errors import FsError
from deferfs.limits import GC_BATCH
from deferfs.reclaim.context import ReclaimChecker
from deferfs.store.io import Job, run_job
from deferfs.store.memory import Memory
from deferfs.store.needs import Need
from deferfs.store.plan import Plan
from deferfs.store.pump import Pump
from deferfs.store.recovery import read_superblock
from deferfs.store.store import open_store
from deferfs.volume import files, reading, writing
from deferfs.volume.engine import Engine
from deferfs.volume.volume import Volume
from deferfs.volume.waits import (
    Admitted,
    Barrier,
    Cleaned,
    Committed,
    DataFlushed,
    DebtsFit,
    EntriesDropped,
    Exclusive,
    Granted,
    LessDirty,
    Listen,
    ReadBytes,
    ReadData,
    Released,
    Task,
    Thawed,
    Wait,
)

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.reclaim.inode import ActiveReference, InCoreInode

P = ParamSpec("P")
T = TypeVar("T")


class DeadlockError(AssertionError):
    """A wait that nothing can end."""


class Driver:
    """A volume on a device, without a kernel."""

    def __init__(self, device: Device, volume: Volume) -> None:
        self.device = device
        self.volume = volume
        self.engine = Engine(device, volume, ReclaimChecker())
        self.checker = self.engine.checker
        self.waited_ns = 0
        """The time that has passed in waits which nothing else ended: the clock of the pace."""
        self.engine.turns.pace.clock = lambda: self.waited_ns

    @classmethod
    def open(
        cls,
        device: Device,
        *,
        clock: Callable[[], int],
        entropy: Callable[[], int],
        stamp: Callable[[], int] | None = None,
        memory_bytes: int = 64 << 20,
        evict: str = "deferred",
        read_only: bool = False,
    ) -> Self:
        """Open (and recover) the image on `device`; `clock`, `stamp` (ns) and `entropy` are those of `Store`."""
        superblock = run_job(device, read_superblock(device.size))
        memory = Memory(memory_bytes)
        job = open_store(superblock, memory, clock=clock, entropy=entropy, stamp=stamp, read_only=read_only)
        store = run_job(device, job)
        return cls(device, Volume(store, evict=evict))

    # --- operations ---
    def run(self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform one operation. FsError with the errno that the system call returns."""
        engine = self.engine
        result = engine.attempt(op, args, kwargs, reserve=False)
        if isinstance(result, Need):
            result = self.drive(engine.retry(result, lambda plan: op(plan, *args, **kwargs), reserve=False))
        if self.volume.due:
            self._wait_for(engine.place_due())
        return result

    def run_reserved(self, op: Callable[[Plan], T]) -> T:
        """Perform an operation that frees space or memory, and may therefore draw on the reserves."""
        return self.drive(self.engine.operation(op, reserve=True))

    def drive(self, task: Task[T]) -> T:
        """Run a task of the engine to its end."""
        running = Pump(task)
        while (wait := running.resume()) is not None:
            try:
                running.answer(self.answer(wait))
            except Exception as error:
                running.fail(error)
        return running.result

    # --- waits ---
    def answer(self, wait: Wait) -> Any:
        """Perform a wait that is IO; make any other end. FsError when that is impossible."""
        if isinstance(wait, ReadBytes | ReadData):
            return self.device.read(wait.offset, wait.length)
        if isinstance(wait, Barrier):
            self.device.flush()
        elif isinstance(wait, Listen):
            self.listen()
        elif isinstance(wait, EntriesDropped):
            return self.drop_entries()
        elif isinstance(wait, Exclusive):
            self.exclusively(wait.job)
        else:
            if not wait.over():
                self.begins(wait)
            while not wait.over():
                if not self.help(wait):
                    if wait.seconds_max < inf:
                        self.time_passes(wait)
                        break
                    raise DeadlockError(f"{type(wait).__name__} never ends")
        return None

    def time_passes(self, wait: Wait) -> None:
        """A wait times out."""
        self.waited_ns += ceil(wait.seconds_max * 1e9)

    def listen(self) -> None:
        """Count the FORGETs that have come."""
        self.drive(self.engine.forgetting.count_kept())

    def drop_entries(self) -> int:
        """There is no kernel that holds any."""
        return 0

    def begins(self, wait: Wait) -> None:
        """A wait begins that others end: have them do so."""
        self.engine.write_back.ask_for(wait)

    def help(self, wait: Wait) -> bool:
        """Do a piece of what a wait is for; False when there is nothing to do, or nothing is due."""
        journal = self.volume.store.journal
        before = self._how_far()
        try:
            if isinstance(wait, Thawed):
                self.thaw()
            elif isinstance(wait, DataFlushed):
                self.drive(self.engine.write_out.flush())
            elif isinstance(wait, Cleaned | Admitted):
                self.work()
            elif isinstance(wait, DebtsFit):
                self.pay_what_is_due()
            elif isinstance(wait, Granted | Committed | Released | LessDirty):
                if not isinstance(wait, Granted):
                    self.engine.write_back.ask_for(wait)
                self.write_back()
        except FsError:
            if journal.aborted is None:
                raise
            # the commit or checkpoint failed: the waiting task sees the aborted journal
        return wait.over() or self._how_far() != before

    def write_back(self) -> None:
        """Run the commit or the checkpoint that is due, if one is: what the background tasks of a mount do."""
        write_back = self.engine.write_back
        job = write_back.commit_due()
        if job is not None:
            self._end(job, write_back.commit_ended)
            return
        job = write_back.checkpoint_due()
        if job is not None:
            self._end(job, write_back.checkpoint_ended)

    def _end(self, job: Job[int], ended: Callable[[], None]) -> None:
        try:
            self.job(job)
        finally:
            ended()

    def _how_far(self) -> tuple[int, ...]:
        """Progress counters: at least one changes with every step."""
        store, cleanup = self.volume.store, self.engine.cleanup
        journal = store.journal
        return (
            journal.committed_tid,
            journal.used,
            len(journal.pending_home),
            store.space.epoch,
            cleanup.steps,
            len(self.volume.gc.delayed),
        )

    def thaw(self) -> None:
        """End a freeze."""
        self.drive(self.engine.freezing.thaw())

    def exclusively(self, job: Job[None]) -> None:
        """Run a job that needs the image to itself."""
        self.job(job)

    # --- eviction ---
    def _wait_for(self, inodes: list[InCoreInode]) -> None:
        if inodes:
            self.drive(self.engine.eviction.wait_for(inodes))

    def dispose(self, inodes: list[InCoreInode]) -> None:
        """Hand inodes to the evict policy, and wait if it says so."""
        self._wait_for(self.engine.eviction.dispose(inodes))

    def forget(self, ino: int, count: int) -> None:
        """Do what the kernel's FORGET does."""
        with self.checker.enter("forget"):
            task = self.engine.forgetting.forget([(ino, count)])
            if task is not None:
                self.drive(task)

    def release(self, reference: ActiveReference) -> None:
        """Do what the kernel's RELEASE does, including the trim that the mount does in the background."""
        with self.checker.enter("release"):
            task = self.engine.eviction.release(reference)
            if task is not None:
                self.drive(task)
        self.trim()

    def trim(self) -> None:
        """Trim the queued files."""
        self.drive(self.engine.eviction.trim_queued())

    def reclaim(self, wanted_bytes: int) -> int:
        """Direct reclaim by an operation that needs memory. Bytes freed."""
        return self.drive(self.engine.eviction.direct_reclaim(wanted_bytes))

    def collect(self, count_max: int = 1 << 62) -> int:
        """Process up to `count_max` queued inodes, as an inodegc worker; how many were taken. Failed ones are queued
        for a retry."""
        gc = self.volume.gc
        count = 0
        while count < count_max:
            before = gc.queued
            if not self.drive(self.engine.cleanup.run_batch(min(GC_BATCH, count_max - count))):
                break
            count += max(0, before - gc.queued)
        return count

    def work(self) -> None:
        """One batch of inodegc: clean up, else write owed access times, else retry failed inodes without delay."""
        engine, gc = self.engine, self.volume.gc
        if self.drive(engine.cleanup.run_batch()):
            return
        if engine.payment.due:
            self.pay_what_is_due()
        elif gc.delayed:
            gc.retry_now()

    def pay_what_is_due(self) -> None:
        """Be the payer for a sweep, if one is due."""
        if self.engine.payment.due:
            self.drive(self.engine.payment.sweep())

    def pay(self) -> None:
        """Have all the access times paid that are owed, unless inodegc is stopped. Those that cannot be are left to
        inodegc."""
        payment, debts = self.engine.payment, self.volume.inodes.debts
        payment.hurry()
        while payment.due:
            before = debts.count
            self.pay_what_is_due()
            if debts.count == before:
                break

    def pay_block(self, first: int) -> None:
        """Write what is owed to one block of the inode table, that with inode `first` in front. What cannot be written
        is left to inodegc."""
        self.drive(self.engine.cleanup.pay(first))

    def reload(self, count_max: int = GC_BATCH) -> int:
        """Queue some of the orphans that wait only in the orphan table; 0 when there are none."""
        return self.drive(self.engine.cleanup.reload(count_max))

    # --- durability ---
    def job(self, job: Job[Any]) -> Any:
        return run_job(self.device, job)

    def commit(self) -> None:
        """A commit, due or not."""
        self.job(self.engine.write_back.commit_now())

    def checkpoint(self) -> None:
        """A checkpoint, due or not."""
        self.job(self.engine.write_back.checkpoint_now(keep_log=False))

    def bring_home(self) -> None:
        """Write committed blocks home so that memory becomes clean; the log still holds them."""
        self.job(self.engine.write_back.checkpoint_now(keep_log=True))

    def sync(self) -> None:
        """Make everything applied so far durable."""
        self.drive(self.engine.durability.sync())

    def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make the file durable: a commit when its metadata changed, else a device flush."""
        self.drive(self.engine.durability.fsync(ino, data_only=data_only))

    def close(self) -> None:
        """Unmount: drop all references, inactivate, write everything home, mark the image clean."""
        if not self.volume.store.read_only:
            self.drive(self.engine.freezing.unmount(inf))
        self.device.close()

    # --- data ---
    def read(self, ino: int, offset: int, length: int) -> bytes:
        """File data, as by read(2)."""
        volume = self.volume
        return self.drive(reading.content(self.engine, lambda plan: files.read(plan, volume, ino, offset, length)))[1]

    def readlink(self, ino: int) -> bytes:
        """The target of a symbolic link."""
        volume = self.volume
        return self.drive(reading.content(self.engine, lambda plan: files.readlink(plan, volume, ino)))[1]

    def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write all of `data` or, on a full disk, as much as fits; bytes written. ENOSPC when that is none."""
        return self.drive(writing.write_all(self.engine, writing.part_of(self.engine, ino), offset, data))

    def truncate(self, ino: int, length: int) -> None:
        volume = self.volume
        self.drive(writing.until_done(self.engine, lambda plan: files.truncate(plan, volume, ino, length)))
