"""The plain-loop driver: runs operations and jobs on a device, satisfying every need at once.

For tests, tools and crash exploration. The mount's runtime does the same with waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from deferfs.errors import FsError, without_traceback
from deferfs.limits import SHRINK_BATCH
from deferfs.reclaim.context import ReclaimChecker
from deferfs.store.checkpoint import bring_home, checkpoint
from deferfs.store.commit import commit
from deferfs.store.io import Job, run_job
from deferfs.store.memory import Memory
from deferfs.store.needs import Need, NeedBlocks, NeedData, NeedFreeSpace, NeedLogSpace, NeedMemory, NeedWriteBack
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_superblock
from deferfs.store.store import close_store, open_store
from deferfs.volume import files, orphans
from deferfs.volume.inactivation import Inactivation
from deferfs.volume.volume import Volume

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.reclaim.inode import InCoreInode
    from deferfs.store.transaction import Grant

P = ParamSpec("P")
T = TypeVar("T")
_GC_BATCH = 64


class Driver:
    """A volume on a device, without a kernel."""

    def __init__(self, device: Device, volume: Volume) -> None:
        self.device = device
        self.volume = volume
        self.checker = ReclaimChecker()

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
        """Open (and recover) the image on `device`; the clocks and `entropy` are those of `Store`."""
        superblock = run_job(device, read_superblock(device.size))
        memory = Memory(memory_bytes)
        job = open_store(superblock, memory, clock=clock, entropy=entropy, stamp=stamp, read_only=read_only)
        store = run_job(device, job)
        return cls(device, Volume(store, evict=evict))

    # --- operations ---
    def run(self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform one operation. FsError as the caller of the filesystem sees it."""
        result = self._run(lambda plan: op(plan, *args, **kwargs), reserve=False)
        self._place(self._take_due())
        return result

    def _run(self, op: Callable[[Plan], T], *, reserve: bool) -> T:
        journal = self.volume.store.journal
        supplied: dict[tuple[int, int], bytes] = {}
        grant: Grant | None = None
        throttled = reserve
        self._reclaim_if_needed(reserve=reserve)
        try:
            while True:
                plan = Plan(self.volume.store, reserve=reserve)
                plan.supplied, plan.grant, plan.throttled = supplied, grant, throttled
                try:
                    result = op(plan)
                    for offset, data in plan.data_writes:
                        self.device.write(offset, data)
                    plan.apply()
                    return result
                except BaseException as error:
                    plan.drop()
                    if not isinstance(error, Need):
                        raise
                    need = without_traceback(error)
                if isinstance(need, NeedBlocks):
                    self._fetch(need)
                elif isinstance(need, NeedData):
                    supplied[need.offset, need.length] = self.device.read(need.offset, need.length)
                elif isinstance(need, NeedLogSpace):
                    grant = self._log_space(grant, need.credits)
                    throttled = True
                elif isinstance(need, NeedWriteBack):
                    self.commit()
                    self.bring_home()
                    throttled = True
                elif isinstance(need, NeedFreeSpace):
                    self._free_space(reserve=reserve)
                else:
                    raise need
        finally:
            if grant is not None:
                journal.give_up(grant)

    def _reclaim_if_needed(self, *, reserve: bool) -> None:
        """Once for each operation: what a retry brought in is not taken from it again."""
        store = self.volume.store
        try:
            store.plan(reserve=reserve)
        except NeedMemory as need:
            if reserve:
                # an inactivation starts no others: they would nest without end
                store.cache.shrink(need.bytes_over)
            else:
                self._reclaim(need.bytes_over)

    # --- needs ---
    def _fetch(self, need: NeedBlocks) -> None:
        run_job(self.device, self.volume.store.fetch(need))

    def _log_space(self, grant: Grant | None, credits: int) -> Grant:
        journal = self.volume.store.journal
        if grant is not None:
            journal.give_up(grant)
        grant = journal.ask(credits)
        try:
            if not journal.serve():
                self.commit()
                if not journal.serve():
                    self.checkpoint()
                    journal.serve()
        except FsError:
            journal.give_up(grant)
            raise
        if not grant.granted:
            journal.give_up(grant)
            raise FsError(errno.ENOSPC, f"an operation of {credits} blocks does not fit into the log")
        return grant

    def _free_space(self, *, reserve: bool) -> None:
        """Make freed blocks reusable, or, but for an operation that frees space itself, have some freed; ENOSPC when
        nothing more can be."""
        store = self.volume.store
        seen = store.space.epoch
        if store.space.pending_blocks:
            self._release_freed()
        if store.space.epoch == seen and self.volume.gc.backlog and not reserve:
            self.collect()
            self._release_freed()
        if store.space.epoch == seen:
            raise FsError(errno.ENOSPC)

    def _release_freed(self) -> None:
        self.commit()
        if self.volume.store.journal.release_later:
            self.checkpoint()

    def _reclaim(self, wanted_bytes: int) -> None:
        """Direct reclaim by the operation that needs memory."""
        with self.checker.enter("direct_reclaim"):
            volume = self.volume
            freed, due = volume.inodes.shrink(wanted_bytes, SHRINK_BATCH, defer=not volume.policy.waits)
            if freed < wanted_bytes:
                self.volume.store.cache.shrink(wanted_bytes - freed)
            self._place(due)

    # --- eviction ---
    def _take_due(self) -> list[InCoreInode]:
        due, self.volume.due = self.volume.due, []
        return due

    def _place(self, inodes: list[InCoreInode]) -> None:
        for inode in self.volume.policy.place(inodes):
            self.inactivate(inode)

    def forget(self, ino: int, count: int) -> None:
        """What the kernel's FORGET does."""
        with self.checker.enter("forget"):
            due = self.volume.inodes.forget(ino, count)
            if due is not None:
                self._place([due])

    def inactivate(self, inode: InCoreInode) -> None:
        """Run one inactivation to its end."""
        inactivation = Inactivation(self.volume.inodes, inode)
        if not inactivation.begin():
            return
        while not self._run(inactivation.step, reserve=True):
            pass
        inactivation.finish()

    def collect(self, count_max: int = 1 << 62) -> int:
        """Be an inodegc worker for up to `count_max` inodes; how many were inactivated."""
        count = 0
        while count < count_max:
            batch = self.volume.gc.take(min(_GC_BATCH, count_max - count))
            if not batch:
                if self.reload():
                    continue
                break
            for inode in batch:
                self.inactivate(inode)
                self.volume.gc.done(inode)
                count += 1
        return count

    def pay(self) -> None:
        """Write all the access times that are owed."""
        debts, fmt = self.volume.inodes.debts, self.volume.store.fmt
        for first in sorted({fmt.first_in_table_block(ino) for ino in debts.debtors(0, debts.places)}):
            self.pay_block(first)

    def pay_block(self, first: int) -> None:
        """Write what is owed to one block of the inode table, that with inode `first` in front."""
        repayment = self.volume.repayment
        self._run(lambda plan: repayment.pay(plan, first), reserve=True)

    def reload(self, count_max: int = _GC_BATCH) -> int:
        """Queue some of what waits in the orphan table alone; 0 when nothing does."""
        return self._run(lambda plan: orphans.reload(plan, self.volume, count_max), reserve=True)

    # --- durability ---
    def job(self, job: Job[Any]) -> Any:
        return run_job(self.device, job)

    def commit(self) -> None:
        store = self.volume.store
        self.job(commit(store.journal, store.clock()))

    def checkpoint(self) -> None:
        store = self.volume.store
        self.job(checkpoint(store.journal, store.clock()))

    def bring_home(self) -> None:
        """Have committed blocks leave memory when it is wanted; the log keeps them."""
        self.job(bring_home(self.volume.store.journal))

    def sync(self) -> None:
        self.commit()

    def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """Make the file durable: a commit when its metadata changed, else a flush."""
        journal = self.volume.store.journal
        if journal.aborted is not None or journal.uncommitted(ino, data_only=data_only):
            self.commit()
            return
        try:
            self.device.flush()
        except OSError as error:
            journal.abort(error)
            raise FsError(errno.EIO, f"flush failed: {error}") from error

    def close(self) -> None:
        """Unmount: drop all references, inactivate, write everything home, mark clean."""
        if not self.volume.store.read_only:
            for inode in self.volume.inodes.drop_all():
                self.volume.gc.enqueue(inode)
            self.collect()
            self.pay()
            self.commit()
            self.job(close_store(self.volume.store))
        self.device.close()

    # --- data ---
    def read(self, ino: int, offset: int, length: int) -> bytes:
        """File data, as read(2) returns it."""
        found = self.run(files.read, self.volume, ino, offset, length)
        return self.bytes_of(found)

    def readlink(self, ino: int) -> bytes:
        return self.bytes_of(self.run(files.readlink, self.volume, ino))

    def bytes_of(self, found: files.ReadPlan) -> bytes:
        if found.inline is not None:
            return found.inline
        return b"".join(
            bytes(piece.length) if piece.offset is None else self.device.read(piece.offset, piece.length)
            for piece in found.pieces
        )

    def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write everything, or, on a full disk, what there is space for; bytes written. ENOSPC when that is nothing."""
        done = 0
        while True:
            try:
                done += self.run(files.write, self.volume, ino, offset + done, data[done:])
            except FsError as error:
                fits = self._write_what_fits(ino, offset + done, data[done:]) if error.errno == errno.ENOSPC else 0
                done += fits
                if not done:
                    raise
                if not fits:
                    return done
            if done >= len(data):
                return done

    def _write_what_fits(self, ino: int, offset: int, data: bytes) -> int:
        for blocks in files.fresh_blocks_to_try(self.volume):
            try:
                return self.run(files.write, self.volume, ino, offset, data, blocks)
            except FsError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return 0

    def truncate(self, ino: int, length: int) -> None:
        while not self.run(files.truncate, self.volume, ino, length):
            pass
