"""What one operation lacks, waited for with nothing held but what it has fetched; the only waits of an operation.

**Invariant:** blocks fetched for an operation stay held until it ends, so that a retry makes progress; log space is
granted in order of arrival.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import trio

from deferfs.errors import CorruptionError, FsError
from deferfs.mount.runtime.grants import Grants, Reservation
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
    from deferfs.device.base import Device
    from deferfs.mount.runtime.committer import Committer
    from deferfs.mount.runtime.instruments import Instruments
    from deferfs.store.store import Store

_ROUNDS_MAX: Final = 10_000
"""Times an operation looks for space again because others took what it had waited for."""


class MemorySource(Protocol):
    """Where memory comes from when an operation lacks it (`Reclaimer`)."""

    async def direct_reclaim(self, wanted_bytes: int) -> int:
        """Run the shrinkers, in reclaim context; the bytes freed."""

    async def wait_for_debts(self) -> None:
        """Not reclaim but throttling: when inodes cannot leave core because they owe too much, wait until they can."""


class SpaceSource(Protocol):
    """Where free blocks come from when an operation finds none (`SpaceReclaimer`)."""

    async def make(self, blocks: int, *, reserve: bool) -> None:
        """Return when the operation should look again. FsError(ENOSPC) when nothing more is to be had."""


class Gate(Protocol):
    """What keeps changes away while the filesystem is frozen (`Freezer`)."""

    async def wait_thawed(self) -> None:
        """Return when changes are possible again. FsError(EINTR) when the caller of the request is being killed."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything comes from that an operation may lack."""

    device: Device
    store: Store
    instruments: Instruments
    committer: Committer
    grants: Grants
    memory: MemorySource
    space: SpaceSource
    gate: Gate


class Waiting:
    """What one operation holds over its retries: fetched blocks, data, a grant."""

    __slots__ = ("_blocks", "_log", "_reserve", "_rounds", "_sources", "_supplied", "_throttled", "_warmed")

    def __init__(self, sources: Sources, *, reserve: bool) -> None:
        self._sources = sources
        self._reserve = reserve
        self._blocks: list[int] = []
        self._supplied: dict[tuple[int, int], bytes] = {}
        self._warmed: set[int] = set()
        self._log = Reservation(sources.grants)
        self._rounds = 0
        self._throttled = reserve

    def plan(self) -> Plan:
        """A plan with what was waited for. The operation has been through direct reclaim: no NeedMemory again."""
        plan = Plan(self._sources.store, reserve=self._reserve, grant=self._log.grant)
        plan.supplied = self._supplied
        plan.throttled = plan.throttled or self._throttled
        return plan

    def end(self) -> None:
        cache = self._sources.store.cache
        for address in self._blocks:
            cache.let_go(address)
        self._give_up_log_space()

    def _give_up_log_space(self) -> None:
        """Before waits for inodegc or a thaw: who is waited for may need it."""
        if self._log.grant is not None:
            self._log.give_up()
            self._sources.grants.serve()

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
            with self._sources.instruments.waits.measure("memory"):
                await self._sources.committer.less_dirty(self._sources.store.memory.dirty_bytes_max)
        elif isinstance(need, NeedFreeSpace):
            self._rounds += 1
            if self._rounds > _ROUNDS_MAX:
                raise FsError(errno.ENOSPC, "others took all the space that was freed")
            self._give_up_log_space()
            await self._sources.space.make(need.blocks, reserve=self._reserve)
        elif isinstance(need, NeedThaw):
            self._give_up_log_space()
            self._sources.instruments.checker.might_wait("thaw")
            with self._sources.instruments.waits.measure("thaw"):
                await self._sources.gate.wait_thawed()
        else:
            raise need

    async def _memory(self, bytes_over: int) -> None:
        sources = self._sources
        if self._reserve:
            # an inactivation must not evict inodes, whose inactivation would evict inodes in turn
            sources.store.cache.shrink(bytes_over)
            return
        with sources.instruments.waits.measure("memory"):
            freed = await sources.memory.direct_reclaim(bytes_over)
            if not freed and self._log.grant is None:
                await sources.memory.wait_for_debts()  # outside of the reclaim context

    async def _read(self, offset: int, length: int) -> bytes | None:
        """Bytes as they are at this moment. None when they had to be waited for: what was read then may be out of date,
        but the page cache is warm, and the operation runs again."""
        device, instruments = self._sources.device, self._sources.instruments
        try:
            data = device.read_nowait(offset, length)
            if data is not None:
                return data
            if offset in self._warmed:
                return device.read(offset, length)
            self._warmed.add(offset)
            instruments.checker.might_wait("io")
            with instruments.waits.measure("io"):
                await trio.to_thread.run_sync(device.read, offset, length)
        except OSError as error:
            raise FsError(errno.EIO, f"reading {length} bytes at {offset}: {error}") from error
        return None

    async def _fetch(self, need: NeedBlocks) -> None:
        store = self._sources.store
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
            self._sources.instruments.checker.might_need("memory")
        over = self._sources.store.memory.excess(reserve=self._reserve) if waited else 0
        if over > 0:
            await self._memory(over)
