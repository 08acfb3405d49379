"""The store: everything a plan works on, and the jobs that open and close it."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from typing import TypeVar

from bitarray import bitarray

from deferfs.errors import CorruptionError, FsError, ImageError
from deferfs.limits import (
    FETCH_BYTES_MAX,
    FETCH_GAP_BYTES,
    INODE_TABLE_FRACTION,
    OPERATION_BLOCKS_MIN,
    OPERATION_FRACTION,
)
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import Block, Format
from deferfs.ondisk.inode import INODE_FILE_INO, ORPHAN_FILE_INO, InodeBlock
from deferfs.ondisk.superblock import (
    COUNTER_SANE_MAX,
    FEATURES_READ_ONLY,
    STATE_CLEAN,
    STATE_ERRORS,
    STATE_REPAIRING,
    Superblock,
)
from deferfs.store import extents
from deferfs.store.cache import BlockCache
from deferfs.store.checkpoint import checkpoint
from deferfs.store.inodes import InodeTable
from deferfs.store.io import Flush, Job, Read, Write, runs_of
from deferfs.store.journal import Journal
from deferfs.store.memory import Memory
from deferfs.store.needs import NeedBlocks, NeedMemory
from deferfs.store.orphans import OrphanTable
from deferfs.store.plan import Plan
from deferfs.store.recovery import read_log, recover, superblock_offset
from deferfs.store.space import FreeSpace

T = TypeVar("T")
_READ_BYTES = 1 << 20
"""Bytes per request of a sequential read."""
_CACHED_AT_OPEN = 16
"""Fraction of the memory budget that may be filled with bitmaps at open: 1/16, all those of a small image."""


class Store:
    """The open filesystem below POSIX: caches, journal, free space, inode table, orphan table.

    `clock` and `stamp` return ns since the epoch. `stamp` gives the time stamps of files (read once per operation, see
    `Plan.now`); `clock`, which is cheaper to read, all other times: of the journal, of queues and their ages, and of
    lazy access times. `entropy` returns 32 random bits for inode generations.
    """

    def __init__(
        self,
        superblock: Superblock,
        memory: Memory,
        *,
        clock: Callable[[], int],
        entropy: Callable[[], int],
        stamp: Callable[[], int] | None = None,
        read_only: bool = False,
    ) -> None:
        """`stamp` defaults to `clock`."""
        self.superblock = superblock
        self.fmt: Format = superblock.format
        self.memory = memory
        self.clock = clock
        self.stamp = clock if stamp is None else stamp
        self.entropy = entropy
        self.read_only = read_only
        self.frozen = False
        """Whether changes have to wait for a thaw."""
        self.cache = BlockCache(self.fmt)
        self.space = FreeSpace(self.fmt, superblock.blocks, self._published_bits)
        self.space.cursor = superblock.inode_root + superblock.blocks // INODE_TABLE_FRACTION
        self.inodes = InodeTable(superblock.inode_root)
        self.orphans = OrphanTable(self.fmt.orphans_per_block)
        self.journal = Journal(self, superblock.tail_tid, superblock.journal_tail)
        self.pinned_bytes = 0
        """Bytes of cached blocks that are pinned while the store is open."""
        self.block_reads = max(1, _READ_BYTES // self.fmt.block_size)
        """Blocks per request of a sequential read."""
        memory.add_account("blocks", lambda: self.cache.bytes, self._shrinkable_blocks)
        memory.add_account("superseded", lambda: self.journal.superseded_bytes)
        memory.add_account("tables", self._table_bytes)
        memory.dirty = lambda: self.dirty_bytes

    def _table_bytes(self) -> int:
        return self.space.resident_bytes + self.inodes.resident_bytes + self.orphans.resident_bytes

    @property
    def dirty_bytes(self) -> int:
        """Estimated bytes of images that must stay in memory until they are written home: running, committing,
        committed. Includes blocks pinned by operations that wait."""
        return self.cache.held_bytes - self.pinned_bytes + self.journal.superseded_bytes

    @property
    def operation_blocks_max(self) -> int:
        """Blocks that an operation stages before it stops and has to be called again: half of a transaction and at most
        a sixteenth of the memory budget, but at least OPERATION_BLOCKS_MIN."""
        memory = self.memory.limit_bytes // OPERATION_FRACTION // (2 * self.fmt.block_size)
        return min(self.journal.transaction_blocks_max // 2, max(OPERATION_BLOCKS_MIN, memory))

    def _shrinkable_blocks(self) -> int:
        """Bytes of blocks that can be evicted now. An eighth of the budget is left to blocks, however many inodes the
        kernel refers to: with less, each operation would have to read back what the one before it evicted."""
        cache = self.cache
        return max(0, min(cache.bytes - cache.held_bytes, cache.bytes - self.memory.limit_bytes // 8))

    def _published_bits(self, group: int) -> bitarray:
        """The cached bitmap of a group. NeedBlocks when it is not cached."""
        address = self.superblock.bitmap_address(group)
        entry = self.cache.entries.get(address)
        if entry is None:
            raise NeedBlocks([(address, Bitmap)])
        entry.hot = True
        bitmap = entry.obj
        if not isinstance(bitmap, Bitmap):
            raise CorruptionError(f"block {address} is used both as {Bitmap.MAGIC!r} and as {bitmap.MAGIC!r}")
        return bitmap.bits

    def plan(self, *, reserve: bool = False) -> Plan:
        """A plan for one operation. NeedMemory when the budget is exceeded."""
        over = self.memory.excess(reserve=reserve)
        if over > 0:
            raise NeedMemory(over)
        return Plan(self, reserve=reserve)

    def write_superblock(self, **changes: object) -> Job[None]:
        """Write and flush the next superblock."""
        renewed = self.superblock.next(**changes)
        yield Write(superblock_offset(renewed), [renewed.encode()])
        yield Flush()
        self.superblock = renewed

    def reads_of(self, addresses: Collection[int]) -> list[tuple[int, int]]:
        """The reads (first block, count) that fetch these blocks, each also the few blocks between two of them.
        CorruptionError when one lies outside the filesystem."""
        for address in addresses:
            if not 0 < address < self.superblock.blocks:
                raise CorruptionError(f"a reference leads to block {address}, outside the filesystem")
        size = self.fmt.block_size
        return runs_of(sorted(addresses), gap_max=FETCH_GAP_BYTES // size, count_max=max(1, FETCH_BYTES_MAX // size))

    def fetch(self, need: NeedBlocks) -> Job[None]:
        """Read the blocks of a Need into the cache. CorruptionError when one is damaged."""
        size = self.fmt.block_size
        kinds = dict(need.blocks)
        for first, count in self.reads_of(kinds):
            data = yield Read(first * size, count * size)
            assert data is not None
            self.cache.supply_all(first, data, kinds)

    def look(self, op: Callable[[Plan], T]) -> Job[T]:
        """Run a read-only operation inside a job."""
        while True:
            try:
                return op(Plan(self, reserve=True))
            except NeedBlocks as need:
                yield from self.fetch(need)

    def statfs_blocks(self) -> tuple[int, int]:
        """(free blocks including those pending a commit, blocks available to ordinary operations)."""
        free = self.space.free_blocks + self.space.pending_blocks
        return free, max(0, free - self.space.reserve)


def open_store(
    superblock: Superblock,
    memory: Memory,
    *,
    clock: Callable[[], int],
    entropy: Callable[[], int],
    stamp: Callable[[], int] | None = None,
    read_only: bool = False,
) -> Job[Store]:
    """Recover if needed, load what is kept in memory, and mark the image in use.

    A read-only open of an image with a log to replay is refused (EROFS): replaying would write.
    """
    unknown = superblock.read_only_compatible & ~FEATURES_READ_ONLY
    if unknown and not read_only:
        raise ImageError(f"unknown feature {unknown:#x}, made by a newer deferfs: it can only be mounted read-only")
    if max(superblock.sequence, superblock.tail_tid) > COUNTER_SANE_MAX and not read_only:
        raise ImageError("the superblock's counters are near their end: deferfs fsck -y renumbers them")
    if superblock.state & STATE_REPAIRING and not read_only:
        raise ImageError("a repair was interrupted: finish it first with deferfs fsck -y")
    if not superblock.clean:
        if read_only:
            content = yield from read_log(superblock)
            if content.transactions:
                raise FsError(errno.EROFS, f"the log must be replayed first: {_way_to_replay(superblock)}")
        else:
            superblock, _ = yield from recover(superblock, clock())
    store = Store(superblock, memory, clock=clock, entropy=entropy, stamp=stamp, read_only=read_only)
    yield from _load_bitmaps(store)
    yield from _load_inodes(store)
    yield from _load_orphans(store)
    if not read_only:
        yield from store.write_superblock(
            state=superblock.state & ~STATE_CLEAN, mounts=(superblock.mounts + 1) % (1 << 64), written_ns=clock()
        )
    return store


def _way_to_replay(superblock: Superblock) -> str:
    """What replays the log: not a read-write mount when that would be refused for another reason."""
    if superblock.state & STATE_REPAIRING:
        return "a repair was interrupted: use deferfs fsck -y, which finishes it"
    if superblock.read_only_compatible & ~FEATURES_READ_ONLY:
        return "mount it read-write with a newer deferfs, which supports its features"
    if max(superblock.sequence, superblock.tail_tid) > COUNTER_SANE_MAX:
        return "use deferfs fsck -y, which also renumbers its transactions"
    return "mount it read-write once, or use deferfs fsck -y"


def _load_bitmaps(store: Store) -> Job[None]:
    """Read all bitmaps once for the free-space index; cache as many as _CACHED_AT_OPEN allows."""
    fmt, cache, left = store.fmt, store.cache, store.superblock.groups
    bytes_max = store.memory.limit_bytes // _CACHED_AT_OPEN
    for start, length in store.superblock.bitmap_regions:
        end = start + min(length, left)
        left -= end - start
        for at in range(start, end, store.block_reads):
            count = min(store.block_reads, end - at)
            data = yield Read(at * fmt.block_size, count * fmt.block_size)
            assert data is not None
            for i in range(count):
                bitmap = Bitmap.decode(fmt, at + i, data[i * fmt.block_size : (i + 1) * fmt.block_size])
                store.space.add_group(bitmap.bits)
                if cache.bytes < bytes_max:
                    cache.publish(at + i, bitmap)
    if left:
        raise CorruptionError("bitmap regions are too short for the image")


def _load_inodes(store: Store) -> Job[None]:
    """Pin chunk 0 of the inode table, and count the inodes in use."""
    fmt, table = store.fmt, store.inodes
    chunk: list[tuple[int, type[Block]]] = [(table.root_address + i, InodeBlock) for i in range(fmt.chunk_blocks)]
    yield from store.fetch(NeedBlocks(chunk))
    for address, _ in chunk:
        store.cache.hold(address)
        store.pinned_bytes += store.cache.entries[address].cost

    def last_block(plan: Plan) -> int:
        last = extents.last_mapping(plan, table.get(plan, INODE_FILE_INO))
        return 0 if last is None else last.end

    end = yield from store.look(last_block)
    table.groups = max(1, -(-end // fmt.inode_group_blocks))
    if table.groups > fmt.inode_groups_max(store.superblock.blocks):
        raise CorruptionError(f"the inode file maps {table.groups} groups of inodes, more than the image can hold")
    for group in range(table.groups):

        def used(plan: Plan, group: int = group) -> int:
            logical = group * fmt.inode_group_blocks
            address = extents.map_range(plan, table.get(plan, INODE_FILE_INO), logical, 1)[0].physical
            return plan.get(address, Bitmap).bits.count(1, 0, fmt.inodes_per_group) if address else 0

        table.used += yield from store.look(used)


def _load_orphans(store: Store) -> Job[None]:
    """Load the orphan table; its inodes are left to inodegc."""

    def mapped(plan: Plan) -> list[tuple[int, int]]:
        table = store.inodes.get(plan, ORPHAN_FILE_INO)
        last = extents.last_mapping(plan, table)
        if last is None:
            return []
        return [(m.physical, m.length) for m in extents.map_range(plan, table, 0, last.end)]

    runs = yield from store.look(mapped)
    size = store.fmt.block_size
    for first, length in runs:
        if not first:
            raise CorruptionError("the orphan table has a hole")
        for at in range(first, first + length, store.block_reads):
            count = min(store.block_reads, first + length - at)
            data = yield Read(at * size, count * size)
            assert data is not None
            for i in range(count):
                store.orphans.load(store.fmt, at + i, data[i * size : (i + 1) * size])


def close_store(store: Store) -> Job[None]:
    """Write everything home and mark the image clean. The caller has committed, and no transaction is running."""
    if store.read_only:
        return
    assert store.journal.running.empty and store.journal.committing is None
    yield from checkpoint(store.journal, store.clock(), clean=True)


def mark_errors(store: Store) -> Job[None]:
    """Record in the superblock that the filesystem met an error."""
    yield from store.write_superblock(state=store.superblock.state | STATE_ERRORS)
