"""The inode table: a growing file of 512-byte records, with one bitmap per inode group.

**Invariants:** the bit of an inode is set exactly when its record's mode is not 0 (the reserved ones: always set); a
chunk of the table is mapped exactly when one of its inodes is in use; chunk 0 and the bitmap of group 0 are always
mapped, chunk 0 at the address in the superblock, so that the inode file's own record can be found.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

from deferfs.errors import CorruptionError, FsError
from deferfs.limits import FILE_BYTES_MAX
from deferfs.ondisk.bitmap import Bitmap
from deferfs.ondisk.format import Block
from deferfs.ondisk.inode import INODE_FILE_INO, Inode, InodeBlock, sealed_head, with_atime
from deferfs.store import extents
from deferfs.store.extents import Mapping
from deferfs.store.needs import NeedBlocks
from deferfs.store.plan import Plan

_MEMO_MAX = 16384
"""Entries of `memo` before it is cleared: at most 2.5 MiB."""
_MEMO_ENTRY_BYTES = 160
"""Bytes of an entry of `memo` or `hints`: two integers and their share of the dict, measured with tracemalloc."""
_BLOCKS_MAX = 1 << 48
"""Block count above which a record is taken for damaged."""
_TYPES = frozenset(
    kind >> 12
    for kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)
"""File types (mode >> 12) that the kernel creates."""


def _nothing(plan: Plan, first: int) -> None:
    """Default of `on_change`."""


class InodeTable:
    """Finds, changes, allocates and frees inode records."""

    def __init__(self, root_address: int) -> None:
        self.root_address = root_address
        self.memo: dict[int, int] = {}
        """Logical block of the inode file -> address. Only published mappings; bounded."""
        self.hints: dict[int, int] = {}
        """Inode group -> lowest index that may be free."""
        self.groups = 1
        """Inode groups that may be mapped; the first always is."""
        self.used = 0
        """Inodes in use, including the reserved ones."""
        self.on_change: Callable[[Plan, int], None] = _nothing
        """Called with the first inode of a table block when a plan first changes a record in that block, so that owed
        updates of it can be added."""

    @property
    def resident_bytes(self) -> int:
        """Estimated resident bytes."""
        return (len(self.memo) + len(self.hints)) * _MEMO_ENTRY_BYTES

    # --- location ---
    def _block(self, plan: Plan, logical: int) -> int:
        """Address of a logical block of the inode file; 0 for a hole."""
        fmt = plan.store.fmt
        if 1 <= logical <= fmt.chunk_blocks:
            return self.root_address + logical - 1
        address = self.memo.get(logical, 0)
        if not address:
            mapping = extents.map_range(plan, self.get(plan, INODE_FILE_INO), logical, 1)[0]
            address = mapping.physical
            if address and INODE_FILE_INO not in plan.inodes:
                if len(self.memo) >= _MEMO_MAX:
                    self.memo.clear()
                self.memo[logical] = address
        return address

    def locate(self, plan: Plan, ino: int) -> tuple[int, int]:
        """(address of the table block, index in it); address 0 when the chunk is not mapped."""
        fmt = plan.store.fmt
        group, index = divmod(ino, fmt.inodes_per_group)
        block, slot = divmod(index, fmt.inodes_per_block)
        return self._block(plan, group * fmt.inode_group_blocks + 1 + block), slot

    # --- records ---
    def get(self, plan: Plan, ino: int) -> Inode:
        """The record as this plan sees it. FsError(ESTALE) when there is no such inode."""
        found = plan.inodes.get(ino)
        if found is not None:
            return found
        found = plan.looked_up.get(ino)
        if found is None:
            found = plan.looked_up[ino] = self._record(plan, ino, *self.locate(plan, ino))
        return found

    def _record(self, plan: Plan, ino: int, address: int, slot: int) -> Inode:
        if not address:
            raise FsError(errno.ESTALE)
        record = plan.get(address, InodeBlock).record(plan.store.fmt, address, slot)
        self._verify(address, ino, record.ino, record.mode, record.size, record.blocks)
        return record

    @staticmethod
    def _verify(address: int, ino: int, found: int, mode: int, size: int, blocks: int) -> None:
        """FsError(ESTALE) when the record `found` is free, CorruptionError when it cannot be that of inode `ino`."""
        if found != ino:
            raise CorruptionError(f"block {address}: inode {found} where {ino} belongs")
        if not mode:
            raise FsError(errno.ESTALE)
        if size > FILE_BYTES_MAX or blocks > _BLOCKS_MAX or mode >> 12 not in _TYPES:
            raise CorruptionError(f"inode {ino}: impossible size, blocks or mode")

    def require(self, plan: Plan, inos: list[int]) -> None:
        """NeedBlocks for all table blocks of these inodes that are not cached."""
        missing: list[tuple[int, type[Block]]] = []
        for ino in inos:
            address, _ = self.locate(plan, ino)
            if address and not plan.has(address):
                missing.append((address, InodeBlock))
        if missing:
            raise NeedBlocks(missing)

    def modify(self, plan: Plan, ino: int) -> Inode:
        """The plan's private copy of the record. FsError(ESTALE) when there is no such inode."""
        found = plan.inodes.get(ino)
        if found is not None:
            return found
        address, slot = self.locate(plan, ino)
        copy = self._record(plan, ino, address, slot).copy()
        if copy.orphan_slot:
            plan.store.orphans.look(plan, copy)
            plan.orphans.append(copy)
        first_change = address not in plan.staged
        plan.modify(address, InodeBlock).records[slot] = copy
        plan.inodes[ino] = copy
        if first_change:
            self.on_change(plan, plan.store.fmt.first_in_table_block(ino))
        return copy

    def raise_atimes(
        self, plan: Plan, first: int, owed: list[tuple[int, int, int]], *, skip_damaged: bool = False
    ) -> list[tuple[int, int, int]]:
        """Raise access times of inodes in the table block that starts with inode `first`: `owed` has (inode,
        generation, time in ns), a record gets at least that time. Returns what is settled: written, or void, as there
        is no such inode.

        `on_change`, which is there for such updates, is not called. A record that is sealed is not decoded as a whole,
        and stays sealed. CorruptionError when a record is damaged, unless such are to be skipped.
        """
        address, _ = self.locate(plan, first)
        settled = []
        for one in owed:
            try:
                if address:
                    self._raise_atime(plan, address, one[0] - first, one)
            except CorruptionError:
                if skip_damaged:
                    continue
                raise
            except FsError as error:
                if error.errno != errno.ESTALE:
                    raise
            settled.append(one)
        return settled

    def _raise_atime(self, plan: Plan, address: int, slot: int, owed: tuple[int, int, int]) -> None:
        """Of one record, if it has this generation; FsError(ESTALE) when it is free."""
        ino, generation, atime = owed
        sealed = plan.get(address, InodeBlock).records[slot]
        if isinstance(sealed, bytes):
            fmt = plan.store.fmt
            found, found_generation, mode, size, blocks, before = sealed_head(fmt, address, sealed)
            self._verify(address, ino, found, mode, size, blocks)
            if found_generation == generation:
                plan.modify(address, InodeBlock).records[slot] = with_atime(fmt, address, sealed, max(before, atime))
                plan.raised.add(ino)
                plan.looked_up.pop(ino, None)
        elif self.get(plan, ino).generation == generation:
            plan.modify(address, InodeBlock)
            record = self.modify(plan, ino)
            record.atime = max(record.atime, atime)

    # --- allocation ---
    def allocate(self, plan: Plan, mode: int, generation: int) -> Inode:
        """Allocate a free inode; its record is the plan's own copy. NeedFreeSpace when the table cannot grow."""
        fmt = plan.store.fmt
        for group in range(self.groups + 1):
            bitmap_address = self._block(plan, group * fmt.inode_group_blocks)
            if not bitmap_address:
                bitmap_address = self._grow_group(plan, group)
            bits = plan.get(bitmap_address, Bitmap).bits
            index = bits.find(0, self.hints.get(group, 0), fmt.inodes_per_group)
            if index >= 0:
                break
        else:
            raise FsError(errno.ENOSPC)
        ino = group * fmt.inodes_per_group + index
        if not self.locate(plan, ino)[0]:
            self._grow_chunk(plan, ino)
        plan.modify(bitmap_address, Bitmap).bits[index] = 1
        address, slot = self.locate(plan, ino)
        record = Inode(ino, mode, generation)
        plan.modify(address, InodeBlock).records[slot] = record
        plan.inodes[ino] = record
        plan.data_sync.add(ino)
        plan.on_apply.append(lambda: self._allocated(group, index))
        return record

    def _allocated(self, group: int, index: int) -> None:
        self.used += 1
        self.hints[group] = index + 1
        self.groups = max(self.groups, group + 1)

    def _grow_group(self, plan: Plan, group: int) -> int:
        fmt = plan.store.fmt
        address, _ = plan.allocate(self.root_address, 1)
        bitmap = Bitmap.empty(fmt, group)
        bitmap.bits[fmt.inodes_per_group :] = 1
        plan.create(address, bitmap)
        table = self.modify(plan, INODE_FILE_INO)
        extents.insert(plan, table, Mapping(group * fmt.inode_group_blocks, address, 1, False))
        return address

    def _grow_chunk(self, plan: Plan, ino: int) -> None:
        """Map and initialise the whole chunk of `ino`, in as few extents as possible."""
        fmt = plan.store.fmt
        first_ino = ino - ino % fmt.inodes_per_group % fmt.inodes_per_chunk
        table = self.modify(plan, INODE_FILE_INO)
        logical = self._chunk_logical(plan, ino)
        end, goal = logical + fmt.chunk_blocks, self.root_address
        while logical < end:
            address, length = plan.allocate(goal, end - logical)
            extents.insert(plan, table, Mapping(logical, address, length, False))
            for i in range(length):
                plan.create(address + i, InodeBlock.fresh(fmt, first_ino))
                first_ino += fmt.inodes_per_block
            logical += length
            goal = address + length

    @staticmethod
    def _chunk_logical(plan: Plan, ino: int) -> int:
        fmt = plan.store.fmt
        group, index = divmod(ino, fmt.inodes_per_group)
        return group * fmt.inode_group_blocks + 1 + index // fmt.inodes_per_chunk * fmt.chunk_blocks

    # --- freeing ---
    def free(self, plan: Plan, ino: int) -> None:
        """Free the record, and its chunk and its group's bitmap when no inode in them is in use."""
        fmt = plan.store.fmt
        record = self.modify(plan, ino)
        generation = record.generation
        address, slot = self.locate(plan, ino)
        plan.modify(address, InodeBlock).records[slot] = Inode(ino, 0, generation)
        del plan.inodes[ino]
        plan.looked_up.pop(ino, None)
        group, index = divmod(ino, fmt.inodes_per_group)
        bitmap_address = self._block(plan, group * fmt.inode_group_blocks)
        bits = plan.modify(bitmap_address, Bitmap).bits
        bits[index] = 0
        chunk_start = index - index % fmt.inodes_per_chunk
        plan.on_apply.append(lambda: self._freed(group, index))
        if ino >= fmt.inodes_per_chunk and not bits.count(1, chunk_start, chunk_start + fmt.inodes_per_chunk):
            self._unmap(plan, self._chunk_logical(plan, ino), fmt.chunk_blocks)
            if group and not bits.count(1, 0, fmt.inodes_per_group):
                self._unmap(plan, group * fmt.inode_group_blocks, 1)

    def _freed(self, group: int, index: int) -> None:
        self.used -= 1
        self.hints[group] = min(self.hints.get(group, 0), index)

    def _unmap(self, plan: Plan, logical: int, count: int) -> None:
        table = self.modify(plan, INODE_FILE_INO)
        for piece in extents.remove(plan, table, logical, logical + count):
            for address in range(piece.physical, piece.physical + piece.length):
                plan.free_metadata(address)
        plan.on_apply.append(lambda: self._forget(logical, count))

    def _forget(self, logical: int, count: int) -> None:
        for i in range(logical, logical + count):
            self.memo.pop(i, None)
