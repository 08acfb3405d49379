"""The trio driver: runs operations, and is the one place in which they wait.

A need raised by a plan is caught here with nothing held, waited for, and the operation runs again. Each wait is timed
by cause (`waits`) and checked against the reclaim context.

**Invariant:** between the start of a plan and its `apply` or `drop` there is no await. Blocks fetched for an
operation stay held until it ends, so that a retry makes progress.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import trio

from deferfs.errors import CorruptionError, FsError, without_traceback
from deferfs.limits import POLL_US_DEFAULT, SHRINK_BATCH
from deferfs.mount.runtime.activity import Activity
from deferfs.mount.runtime.background import Background
from deferfs.mount.runtime.blockgc import BlockGc
from deferfs.mount.runtime.busy_poll import BusyPoll
from deferfs.mount.runtime.forgets import Forgets
from deferfs.mount.runtime.freezer import Freezer
from deferfs.mount.runtime.gc_workers import GcWorkers
from deferfs.mount.runtime.jobs import read_device
from deferfs.mount.runtime.log_space import CircleBreaker, CircularWaitError
from deferfs.mount.runtime.payer import Payer
from deferfs.mount.runtime.pressure_watch import PressureWatch
from deferfs.mount.runtime.room import Room
from deferfs.mount.runtime.samples import samples
from deferfs.mount.runtime.throttle import Throttle
from deferfs.mount.runtime.timeline import Timeline, create_no_file
from deferfs.mount.runtime.waiting import Waiting
from deferfs.mount.runtime.waits import Timings, Waits
from deferfs.reclaim.context import ReclaimChecker
from deferfs.reclaim.lockdep import FS_RECLAIM
from deferfs.store.needs import Need
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files

if TYPE_CHECKING:
    from deferfs.device.base import Buffer, Device
    from deferfs.reclaim.inode import ActiveReference, InCoreInode
    from deferfs.volume.volume import Volume

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Runtime:
    """One mounted volume. `strict` makes a wait in reclaim context fatal (tests, under the deferred policy)."""

    def __init__(
        self,
        device: Device,
        volume: Volume,
        *,
        commit_seconds: float = 5,
        gc_workers: int = 2,
        poll_us: int = POLL_US_DEFAULT,
        discard: bool = False,
        background_reclaim: bool = True,
        strict: bool = False,
        being_killed: Callable[[int], bool] = lambda _pid: False,
        create_file: Callable[[str], int] = create_no_file,
    ) -> None:
        """`being_killed` tells whether a thread is, `create_file` opens a new file for a timeline: both ask the system
        about what lies outside of the volume."""
        self.device = device
        self.volume = volume
        self.store = volume.store
        self.being_killed = being_killed
        self.timeline = Timeline(lambda: samples(volume), create_file)
        self.activity = Activity(self.timeline)
        self.waits = Waits(self.activity)
        self.requests = Timings()
        self.checker = ReclaimChecker(strict=strict)
        self.checker.on_violation = self.activity.instant
        self.circles = CircleBreaker(self)
        self.direct_reclaims_total = 0
        self.corruptions_total = 0
        self.busy_poll = BusyPoll(poll_us)
        self.background = Background(self, commit_seconds=commit_seconds, discard=discard, reclaims=background_reclaim)
        self.workers = GcWorkers(self, gc_workers)
        self.payer = Payer(self)
        self.blockgc = BlockGc(self)
        self.forgets = Forgets(self)
        self.throttle = Throttle(self)
        self.room = Room(self)
        self.freezer = Freezer(self)
        self.pressure = PressureWatch([], self.background.under_pressure)

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the background tasks."""
        self.background.start(nursery)
        self.forgets.start(nursery)
        nursery.start_soon(self.timeline.run)
        if not self.store.read_only:
            self.workers.start(nursery)
            nursery.start_soon(self.payer.run)
            nursery.start_soon(self.blockgc.run)
            nursery.start_soon(self.freezer.run)

    # --- operations ---
    def run(self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Perform one operation; FsError as the caller of the filesystem sees it."""
        self.checker.might_need("memory")
        return self._perform(op, args, kwargs, reserve=False)

    def run_reserved(self, op: Callable[[Plan], T]) -> Coroutine[Any, Any, T]:
        """Perform an operation that frees space or memory: it may draw on the reserves."""
        self.checker.might_need("log")
        return self._perform(op, (), {}, reserve=True)

    async def _perform(
        self, op: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any], *, reserve: bool
    ) -> T:
        """The fast path does not wait at all, and is one coroutine: every request goes through it."""
        plan: Plan | None = None
        lacking: Need | None = None
        try:
            plan = self.store.plan(reserve=reserve)
            result = op(plan, *args, **kwargs)
            if plan.data_writes:
                self._write_data(plan)
            plan.apply()
        except Need as need:
            if plan is not None:
                plan.drop()
            lacking = without_traceback(need)
        except BaseException as error:
            if plan is not None:
                plan.drop()
            self.note(error)
            raise
        else:
            self.background.after_operation()
        if lacking is not None:
            result = await self._retry(lacking, lambda plan: op(plan, *args, **kwargs), reserve=reserve)
        if self.volume.due and not reserve:
            due, self.volume.due = self.volume.due, []
            await self.place(due)
        return result

    def _write_data(self, plan: Plan) -> None:
        write = self.device.write
        try:
            for offset, data in plan.data_writes:
                write(offset, data)
        except OSError as error:
            raise FsError(errno.EIO, f"writing file data: {error}") from error

    def note(self, error: BaseException) -> None:
        """Count and log damage: the superblock says so in the end."""
        if isinstance(error, CorruptionError):
            self.corruptions_total += 1
            log.error("corruption: %s", error)

    async def _retry(self, need: Need, op: Callable[[Plan], T], *, reserve: bool) -> T:
        """The slow path: satisfy needs until the operation goes through."""
        waiting = Waiting(self, reserve=reserve)
        try:
            while True:
                await waiting.satisfy(need)
                plan: Plan | None = None
                try:
                    plan = waiting.plan()
                    result = op(plan)
                    self._write_data(plan)
                    plan.apply()
                    self.background.after_operation()
                    return result
                except Need as another:
                    if plan is not None:
                        plan.drop()
                    need = without_traceback(another)
                except BaseException as error:
                    if plan is not None:
                        plan.drop()
                    self.note(error)
                    raise
        finally:
            waiting.end()

    # --- eviction ---
    async def place(self, inodes: list[InCoreInode]) -> None:
        """Hand inodes to the evict policy, and wait for those it gives back (inline). While inodegc is stopped, all
        of them wait in its queues."""
        if self.workers.stopped:
            for inode in inodes:
                self.volume.gc.enqueue(inode)
            return
        for inode in self.volume.policy.place(inodes):
            self.checker.might_wait("gc")
            with self.waits.measure("gc"):
                try:
                    await self.workers.inactivate_or_queue(inode)
                except CircularWaitError:
                    if self.volume.inodes.interrupt(inode):
                        self.volume.gc.enqueue(inode)

    async def forget(self, inodes: list[tuple[int, int]]) -> None:
        """FORGET. Under `deferred` this finishes without one await."""
        with self.checker.enter("forget"):
            await self.forgets.take(inodes)

    async def release(self, reference: ActiveReference) -> None:
        """RELEASE: the last handle of a deleted file, or of one with blocks past EOF, leaves work for the policy."""
        with self.checker.enter("release"):
            inode = reference.inode
            due = reference.release()
            if due is not None:
                await self.place([due])
            elif inode.preallocated and not inode.active_tokens and not inode.orphan:
                if not self.volume.policy.waits or self.workers.stopped:
                    self.blockgc.queue(inode.ino, inode.generation)
                else:
                    self.checker.might_wait("gc")
                    with self.waits.measure("gc"):
                        await self.blockgc.trim(inode.ino, inode.generation)

    async def direct_reclaim(self, wanted_bytes: int) -> int:
        """The operation that needs memory runs the shrinkers itself, and waits if the policy says so. Bytes freed."""
        self.direct_reclaims_total += 1
        self.checker.might_need("memory")
        with self.checker.enter("direct_reclaim"):
            return await self.shrink(wanted_bytes)

    async def background_reclaim(self, wanted_bytes: int) -> int:
        """The same by a task of its own, which may wait: nobody waits for it but for want of memory. Bytes freed."""
        with self.checker.holding("background reclaim", FS_RECLAIM):
            return await self.shrink(wanted_bytes)

    @contextmanager
    def working(self, name: str, *lock_classes: str) -> Iterator[None]:
        """A background task does what others may be waiting for."""
        with self.checker.holding(name, *lock_classes), self.activity.span(name):
            yield

    async def shrink(self, wanted_bytes: int) -> int:
        """Run the shrinkers: inodes first (they may hold blocks dirty), then blocks. Bytes freed."""
        defer = self.workers.stopped or not self.volume.policy.waits
        freed, due = self.volume.inodes.shrink(wanted_bytes, SHRINK_BATCH, defer=defer)
        self.payer.noted()
        if freed < wanted_bytes:
            freed += self.store.cache.shrink(wanted_bytes - freed)
        if due:
            await self.place(due)
        return freed

    # --- data ---
    async def read(self, ino: int, offset: int, length: int, *, quiet: bool = False) -> bytes:
        """File data. Read again when blocks changed hands while it was read from the device.

        `quiet`: the access time stays as it is.
        """
        while True:
            found = await self.run(files.read, self.volume, ino, offset, length)
            data = await self.bytes_of(found)
            if data is not None:
                if not quiet:
                    attributes.accessed(self.volume, found.record)
                return data

    async def readlink(self, ino: int) -> bytes:
        while True:
            found = await self.run(files.readlink, self.volume, ino)
            data = await self.bytes_of(found)
            if data is not None:
                attributes.accessed(self.volume, found.record)
                return data

    async def bytes_of(self, found: files.ReadPlan) -> bytes | None:
        """The bytes a read plan describes; None when it went stale during a cold read."""
        if found.inline is not None:
            return found.inline
        parts: list[bytes] = []
        waited = False
        for offset, length in found.pieces:
            if offset is None:
                parts.append(bytes(length))
                continue
            try:
                data = self.device.read_nowait(offset, length)
                if data is None:
                    waited = True
                    self.checker.might_wait("io")
                    with self.waits.measure("io"):
                        data = await read_device(self.device, offset, length)
            except OSError as error:
                raise FsError(errno.EIO, f"reading file data: {error}") from error
            parts.append(data)
        if waited and self.store.space.epoch != found.epoch:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write everything, or, on a full disk, what there is space for; bytes written. ENOSPC when that is nothing."""
        done = 0
        rest: Buffer = data
        while True:
            try:
                done += await self.run(files.write, self.volume, ino, offset + done, rest)
            except FsError as error:
                fits = await self._write_what_fits(ino, offset + done, rest) if error.errno == errno.ENOSPC else 0
                done += fits
                if not done:
                    raise
                if not fits:
                    return done
            if done >= len(data):
                return done
            rest = memoryview(data)[done:]
            await trio.lowlevel.checkpoint()

    async def _write_what_fits(self, ino: int, offset: int, data: Buffer) -> int:
        for blocks in files.fresh_blocks_to_try(self.volume):
            try:
                return await self.run(files.write, self.volume, ino, offset, data, blocks)
            except FsError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return 0

    # --- durability ---
    async def sync(self) -> None:
        """Everything applied so far becomes durable."""
        with self.waits.measure("commit"):
            await self.background.commit_all()

    async def fsync(self, ino: int, *, data_only: bool = False) -> None:
        """The file becomes durable: by the running commit when its metadata changed, else by a flush."""
        with self.waits.measure("commit"):
            tid = self.store.journal.uncommitted(ino, data_only=data_only)
            if tid:
                await self.background.commit_through(tid)
            else:
                await self.background.flush()

    async def close(self) -> None:
        """Unmount: no FORGET will come. Inactivate, write everything home, mark the image clean."""
        await self.background.drain_and_close()
        await self.timeline.stop()
