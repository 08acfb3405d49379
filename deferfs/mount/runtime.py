"""The trio driver: runs operations, and is the one place in which they wait.

A need raised by a plan is caught here with nothing held, waited for, and the operation runs again. Each wait is timed
by cause (`waits`) and checked against the reclaim context.

**Invariant:** between the start of a plan and its `apply` or `drop` there is no await. Blocks fetched for an
operation stay held until it ends, so that a retry makes progress.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.limits import SHRINK_BATCH
from deferfs.mount import status
from deferfs.mount.background import Background
from deferfs.mount.gc_workers import GcWorkers
from deferfs.mount.jobs import read_device
from deferfs.mount.waits import WAIT_KINDS, Timings
from deferfs.reclaim.context import ReclaimChecker
from deferfs.store.needs import Need, NeedBlocks, NeedData, NeedLogSpace, NeedMemory
from deferfs.store.plan import Plan
from deferfs.volume import attributes, files

if TYPE_CHECKING:
    from deferfs.device.base import Device
    from deferfs.reclaim.inode import ActiveReference, InCoreInode
    from deferfs.store.journal import Grant
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
        discard: bool = False,
        strict: bool = False,
    ) -> None:
        self.device = device
        self.volume = volume
        self.store = volume.store
        self.waits = Timings(WAIT_KINDS)
        self.requests = Timings()
        self.checker = ReclaimChecker(strict=strict)
        self.direct_reclaims_total = 0
        self.corruptions_total = 0
        self.background = Background(self, commit_seconds=commit_seconds, discard=discard)
        self.workers = GcWorkers(self, gc_workers)

    async def start(self, nursery: trio.Nursery) -> None:
        """Start the background tasks."""
        self.background.start(nursery)
        if not self.store.read_only:
            self.workers.start(nursery)

    # --- operations ---
    async def run(self, op: Callable[Concatenate[Plan, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Perform one operation; FsError as the caller of the filesystem sees it."""
        result = await self._perform(lambda plan: op(plan, *args, **kwargs), reserve=False)
        if self.volume.due:
            due, self.volume.due = self.volume.due, []
            await self.place(due)
        return result

    async def run_reserved(self, op: Callable[[Plan], T]) -> T:
        """Perform an operation that frees space or memory: it may draw on the reserves."""
        return await self._perform(op, reserve=True)

    async def _perform(self, op: Callable[[Plan], T], *, reserve: bool) -> T:
        """The fast path does not wait at all."""
        plan: Plan | None = None
        try:
            plan = self.store.plan(reserve=reserve)
            result = op(plan)
            if plan.data_writes:
                self._write_data(plan)
            plan.apply()
        except Need as need:
            if plan is not None:
                plan.drop()
            return await self._retry(need, op, reserve=reserve)
        except BaseException as error:
            if plan is not None:
                plan.drop()
            self._note(error)
            raise
        self.background.after_operation()
        return result

    def _write_data(self, plan: Plan) -> None:
        write = self.device.write
        try:
            for offset, data in plan.data_writes:
                write(offset, data)
        except OSError as error:
            raise FsError(errno.EIO, f"writing file data: {error}") from error

    def _note(self, error: BaseException) -> None:
        if isinstance(error, CorruptionError):
            self.corruptions_total += 1
            log.error("corruption: %s", error)

    async def _retry(self, need: Need, op: Callable[[Plan], T], *, reserve: bool) -> T:
        """The slow path: satisfy needs until the operation goes through."""
        waiting = _Waiting(self, reserve=reserve)
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
                    need = another
                except BaseException as error:
                    if plan is not None:
                        plan.drop()
                    self._note(error)
                    raise
        finally:
            waiting.end()

    # --- eviction ---
    async def place(self, inodes: list[InCoreInode]) -> None:
        """Hand inodes to the evict policy, and wait for those it gives back (inline)."""
        for inode in self.volume.policy.place(inodes):
            self.checker.might_wait("gc")
            with self.waits.measure("gc"):
                await self.workers.inactivate_or_queue(inode)

    async def forget(self, inodes: list[tuple[int, int]]) -> None:
        """FORGET. Under `deferred` this finishes without one await."""
        with self.checker.enter("forget"):
            forget = self.volume.inodes.forget
            due = [inode for inode in (forget(ino, count) for ino, count in inodes) if inode is not None]
            if due:
                await self.place(due)

    async def release(self, reference: ActiveReference) -> None:
        """RELEASE: the last handle of a deleted file, or of one with blocks past EOF, leaves work for the policy."""
        with self.checker.enter("release"):
            inode = reference.inode
            due = reference.release()
            if due is not None:
                await self.place([due])
            elif inode.preallocated and not inode.active_tokens and not inode.orphan:
                if self.volume.policy.name == "deferred":
                    self.workers.queue_trim(inode.ino)
                else:
                    with self.waits.measure("gc"):
                        await self.workers.trim(inode.ino)

    async def direct_reclaim(self, wanted_bytes: int) -> None:
        """The operation that needs memory runs the shrinkers itself, and waits if the policy says so."""
        self.direct_reclaims_total += 1
        with self.checker.enter("direct_reclaim"):
            await self.shrink(wanted_bytes)

    async def shrink(self, wanted_bytes: int) -> int:
        """Run the shrinkers: inodes first (they may hold blocks dirty), then blocks. Bytes freed."""
        freed, due = self.volume.inodes.shrink(wanted_bytes, SHRINK_BATCH)
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
                    with self.waits.measure("io"):
                        data = await read_device(self.device, offset, length)
            except OSError as error:
                raise FsError(errno.EIO, f"reading file data: {error}") from error
            parts.append(data)
        if waited and self.store.space.epoch != found.epoch:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        """Write everything; bytes written. When space runs out in between, what was written so far."""
        done = await self.run(files.write, self.volume, ino, offset, data)
        view = memoryview(data)
        while done < len(data):
            try:
                done += await self.run(files.write, self.volume, ino, offset + done, view[done:])
            except FsError:
                if done:
                    return done
                raise
            await trio.lowlevel.checkpoint()
        return done

    async def truncate(self, ino: int, length: int) -> None:
        while not await self.run(files.truncate, self.volume, ino, length):
            await trio.lowlevel.checkpoint()

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

    # --- control ---
    def snapshot(self) -> dict[str, object]:
        """The statistics object of `deferfs stat --json`, without what only the session knows."""
        return status.snapshot(self)

    async def control(self, key: str, value: str) -> str:
        """Carry out `deferfs ctl KEY=VALUE`; a line for the user. UsageError when it cannot be understood."""
        return await status.control(self, key, value)


class _Waiting:
    """What one operation holds over its retries: fetched blocks, data, a grant."""

    __slots__ = ("_attempts", "_blocks", "_grant", "_reserve", "_runtime", "_supplied", "_warmed")

    def __init__(self, runtime: Runtime, *, reserve: bool) -> None:
        self._runtime = runtime
        self._reserve = reserve
        self._blocks: list[int] = []
        self._supplied: dict[tuple[int, int], bytes] = {}
        self._warmed: set[int] = set()
        self._grant: Grant | None = None
        self._attempts = 0

    def plan(self) -> Plan:
        """A plan with what was waited for. The operation has been through direct reclaim: no NeedMemory again."""
        plan = Plan(self._runtime.store, reserve=self._reserve, grant=self._grant)
        plan.supplied = self._supplied
        return plan

    def end(self) -> None:
        cache = self._runtime.store.cache
        for address in self._blocks:
            cache.let_go(address)
        if self._grant is not None:
            self._runtime.store.journal.give_up(self._grant)
            self._runtime.background.serve_grants()

    async def satisfy(self, need: Need) -> None:
        if isinstance(need, NeedBlocks):
            await self._fetch(need)
        elif isinstance(need, NeedData):
            await self._data(need)
        elif isinstance(need, NeedLogSpace):
            await self._log_space(need.credits)
        elif isinstance(need, NeedMemory):
            await self._memory(need.bytes_over)
        else:
            await self._free_space()

    async def _memory(self, bytes_over: int) -> None:
        runtime = self._runtime
        if self._reserve:
            # an inactivation must not evict inodes, whose inactivation would evict inodes in turn
            runtime.store.cache.shrink(bytes_over)
            return
        with runtime.waits.measure("memory"):
            await runtime.direct_reclaim(bytes_over)
            if runtime.store.dirty_bytes > runtime.store.memory.limit_bytes // 4:
                # that is not reclaim but throttling, and outside the reclaim context
                await runtime.background.write_back()

    async def _read(self, offset: int, length: int) -> bytes | None:
        """Bytes as they are at this moment. None when they had to be waited for: what was read then may be out of date,
        but the page cache is warm, and the operation runs again."""
        runtime = self._runtime
        try:
            data = runtime.device.read_nowait(offset, length)
            if data is not None:
                return data
            if offset in self._warmed:
                return runtime.device.read(offset, length)
            self._warmed.add(offset)
            runtime.checker.might_wait("io")
            with runtime.waits.measure("io"):
                await trio.to_thread.run_sync(runtime.device.read, offset, length)
        except OSError as error:
            raise FsError(errno.EIO, f"reading {length} bytes at {offset}: {error}") from error
        return None

    async def _fetch(self, need: NeedBlocks) -> None:
        store = self._runtime.store
        size = store.fmt.block_size
        for address, kind in need.blocks:
            if not 0 < address < store.superblock.blocks:
                raise CorruptionError(f"a reference leads to block {address}, outside the filesystem")
            data = await self._read(address * size, size)
            if data is not None:
                store.cache.supply(address, kind, data)
                store.cache.hold(address)
                self._blocks.append(address)

    async def _data(self, need: NeedData) -> None:
        data = await self._read(need.offset, need.length)
        if data is not None:
            self._supplied = {(need.offset, need.length): data}

    async def _log_space(self, credits: int) -> None:
        runtime = self._runtime
        journal = runtime.store.journal
        if self._grant is not None:
            journal.give_up(self._grant)
        if credits > journal.transaction_blocks_max:
            raise FsError(errno.ENOSPC, f"an operation of {credits} blocks does not fit into the log")
        self._grant = journal.ask(credits)
        runtime.background.serve_grants()
        if not self._grant.granted:
            runtime.checker.might_wait("log")
            with runtime.waits.measure("log"):
                await runtime.background.wait_granted(self._grant)

    async def _free_space(self) -> None:
        """First what is freed but not committed, then what inodegc can free; ENOSPC when neither helps."""
        runtime = self._runtime
        self._attempts += 1
        if self._attempts > 3:
            raise FsError(errno.ENOSPC)
        if not runtime.store.space.pending_blocks:
            if self._reserve or not runtime.workers.has_work:
                raise FsError(errno.ENOSPC)
            runtime.checker.might_wait("space")
            with runtime.waits.measure("space"):
                await runtime.workers.flush()
        with runtime.waits.measure("space"):
            await runtime.background.release_freed()
