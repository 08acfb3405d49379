"""The resources that one operation holds over its retries, and how each Need is satisfied.

**Invariants**
- Blocks fetched for an operation stay pinned until it ends, so that a retry makes progress; log space is granted in
  order of arrival.
- Log space is given up before a wait for free space or for a thaw, because that wait may depend on it.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from deferfs.errors import FsError
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
from deferfs.volume.log_space import Reservation
from deferfs.volume.waits import ReadBytes, Task

if TYPE_CHECKING:
    from deferfs.volume.engine import Engine

_ROUNDS_MAX: Final = 10_000
"""Retries of one allocation after other operations took the space it had waited for; then ENOSPC."""


class Holding:
    """Pinned blocks, data read, and a grant of log space."""

    __slots__ = ("_blocks", "_engine", "_log", "_reserve", "_rounds", "_supplied", "_throttled", "_warmed")

    def __init__(self, engine: Engine, *, reserve: bool) -> None:
        self._engine = engine
        self._reserve = reserve
        self._blocks: list[int] = []
        self._supplied: dict[tuple[int, int], bytes] = {}
        self._warmed: set[int] = set()
        self._log = Reservation(engine)
        self._rounds = 0
        self._throttled = reserve

    def plan(self) -> Plan:
        """A plan with these resources. The operation has done direct reclaim: no NeedMemory again."""
        plan = Plan(self._engine.store, reserve=self._reserve, grant=self._log.grant)
        plan.supplied = self._supplied
        plan.throttled = plan.throttled or self._throttled
        return plan

    def end(self) -> None:
        """Release everything, whether the operation succeeded or failed."""
        cache = self._engine.store.cache
        for address in self._blocks:
            cache.let_go(address)
        self._blocks.clear()
        self._give_up_log_space()

    def _give_up_log_space(self) -> None:
        if self._log.grant is not None:
            self._log.give_up()
            self._engine.log_space.serve()

    def satisfy(self, need: Need) -> Task[None]:
        """Wait for what is lacking. FsError when it cannot be had."""
        engine = self._engine
        if isinstance(need, NeedBlocks):
            yield from self._fetch(need)
        elif isinstance(need, NeedData):
            yield from self._data(need)
        elif isinstance(need, NeedLogSpace):
            yield from self._log_space(need.credits)
        elif isinstance(need, NeedMemory):
            yield from self._memory(need.bytes_over)
        elif isinstance(need, NeedWriteBack):
            self._throttled = True
            with engine.measure("memory"):
                yield from engine.durability.make_up_for(need.blocks)
        elif isinstance(need, NeedFreeSpace):
            self._rounds += 1
            if self._rounds > _ROUNDS_MAX:
                raise FsError(errno.ENOSPC, "other operations took all the freed space")
            self._give_up_log_space()
            yield from engine.space.make(need.blocks, reserve=self._reserve)
        elif isinstance(need, NeedThaw):
            self._give_up_log_space()
            yield from engine.freezing.thawed()
        else:
            raise need

    def _memory(self, bytes_over: int) -> Task[None]:
        engine = self._engine
        if self._reserve:
            # no eviction here: an inactivation that evicts inodes would recurse into inactivation
            engine.store.cache.shrink(bytes_over)
            return
        with engine.measure("memory"):
            freed = yield from engine.eviction.direct_reclaim(bytes_over)
            if not freed and engine.volume.inodes.debts.full and self._log.grant is None:
                # throttling rather than reclaim, hence outside the reclaim context
                yield from engine.cleanup.wait_for_debt_slot()

    def _read(self, offset: int, length: int) -> Task[bytes | None]:
        """Bytes as they are now. None when the driver had to wait: the bytes may be stale by then, but the page cache
        is warm, and the operation runs again."""
        again = offset in self._warmed
        self._warmed.add(offset)
        try:
            data: bytes | None = yield ReadBytes(offset, length, again=again)
        except OSError as error:
            raise FsError(errno.EIO, f"reading {length} bytes at {offset}: {error}") from error
        return data

    def _fetch(self, need: NeedBlocks) -> Task[None]:
        """Fetch several blocks, those near to each other by one read. Once a read had to wait, the remaining blocks may
        have been reused: they are read only to warm the page cache, and the retried operation asks again for those it
        still needs."""
        store = self._engine.store
        size = store.fmt.block_size
        kinds = dict(need.blocks)
        waited = False
        reads = deque(store.reads_of(kinds))
        while reads:
            first, count = reads.popleft()
            try:
                data = yield from self._read(first * size, count * size)
            except FsError:
                if count == 1:
                    raise
                # a block between those that are needed may be the bad one
                reads.extendleft((address, 1) for address in range(first, first + count) if address in kinds)
                continue
            if data is None:
                waited = True
            elif not waited:
                for address in store.cache.supply_all(first, data, kinds):
                    store.cache.hold(address)
                    self._blocks.append(address)
                # what is brought in takes the place of colder blocks: a cleanup may have used all of the budget
                over = store.memory.excess(reserve=True)
                if over > 0:
                    store.cache.shrink(over)

    def _data(self, need: NeedData) -> Task[None]:
        data = yield from self._read(need.offset, need.length)
        if data is not None:
            self._supplied = {(need.offset, need.length): data}

    def _log_space(self, credits: int) -> Task[None]:
        """Reserve log space. If memory ran over its limit during the wait, reclaim with the reservation held, as a
        kernel filesystem does when it allocates inside a transaction."""
        waited = yield from self._log.reserve(credits)
        if not self._reserve:
            self._engine.checker.might_need("memory")
        over = self._engine.store.memory.excess(reserve=self._reserve) if waited else 0
        if over > 0:
            yield from self._memory(over)
