"""What one operation lacks, waited for with nothing held but what it has fetched; the only waits of an operation.

**Invariant:** blocks fetched for an operation stay held until it ends, so that a retry makes progress; log space is
granted in order of arrival.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.runtime.log_space import Reservation
from deferfs.store.needs import (
    Need,
    NeedBlocks,
    NeedData,
    NeedFreeSpace,
    NeedLogSpace,
    NeedMemory,
    NeedThaw,
    NeedWriteBack,
)
from deferfs.store.plan import Plan

if TYPE_CHECKING:
    from deferfs.mount.runtime.runtime import Runtime

_ROUNDS_MAX: Final = 10_000
"""Times an operation looks for space again because others took what it had waited for."""


class Waiting:
    """What one operation holds over its retries: fetched blocks, data, a grant."""

    __slots__ = ("_blocks", "_log", "_reserve", "_rounds", "_runtime", "_supplied", "_throttled", "_warmed")

    def __init__(self, runtime: Runtime, *, reserve: bool) -> None:
        self._runtime = runtime
        self._reserve = reserve
        self._blocks: list[int] = []
        self._supplied: dict[tuple[int, int], bytes] = {}
        self._warmed: set[int] = set()
        self._log = Reservation(runtime)
        self._rounds = 0
        self._throttled = reserve

    def plan(self) -> Plan:
        """A plan with what was waited for. The operation has been through direct reclaim: no NeedMemory again."""
        plan = Plan(self._runtime.store, reserve=self._reserve, grant=self._log.grant)
        plan.supplied = self._supplied
        plan.throttled = plan.throttled or self._throttled
        return plan

    def end(self) -> None:
        cache = self._runtime.store.cache
        for address in self._blocks:
            cache.let_go(address)
        self._give_up_log_space()

    def _give_up_log_space(self) -> None:
        """Before waits for inodegc or a thaw: who is waited for may need it."""
        if self._log.grant is not None:
            self._log.give_up()
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
        elif isinstance(need, NeedWriteBack):
            self._throttled = True
            with self._runtime.waits.measure("memory"):
                await self._runtime.background.less_dirty(self._runtime.store.memory.dirty_bytes_max)
        elif isinstance(need, NeedFreeSpace):
            self._rounds += 1
            if self._rounds > _ROUNDS_MAX:
                raise FsError(errno.ENOSPC, "others took all the space that was freed")
            self._give_up_log_space()
            await self._runtime.room.make(need.blocks, reserve=self._reserve)
        elif isinstance(need, NeedThaw):
            self._give_up_log_space()
            self._runtime.checker.might_wait("thaw")
            with self._runtime.waits.measure("thaw"):
                await self._runtime.freezer.wait_thawed()
        else:
            raise need

    async def _memory(self, bytes_over: int) -> None:
        runtime = self._runtime
        if self._reserve:
            # an inactivation must not evict inodes, whose inactivation would evict inodes in turn
            runtime.store.cache.shrink(bytes_over)
            return
        with runtime.waits.measure("memory"):
            freed = await runtime.direct_reclaim(bytes_over)
            if not freed and runtime.volume.inodes.debts.full and self._log.grant is None:
                # not reclaim but throttling, and outside the reclaim context
                await runtime.payer.room()

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
        """Reserve. Memory that others used up during the wait is reclaimed with the reservation held, as a
        filesystem in the kernel allocates inside of its transactions."""
        waited = await self._log.reserve(credits)
        if not self._reserve:
            self._runtime.checker.might_need("memory")
        over = self._runtime.store.memory.excess(reserve=self._reserve) if waited else 0
        if over > 0:
            await self._memory(over)
